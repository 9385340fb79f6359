import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { eventually } from "./eventually.ts";
import { freePort } from "./free-port.ts";
import { needPrograms, programPath } from "./packages.ts";

const NEED = {
  programs: ["pgbouncer"],
  packages: ["pgbouncer"],
  otherwise: "The tests need pgbouncer: install it",
};
const START_MS_MAX = 30_000;

/**
 * PgBouncer in transaction mode in front of a test's database, with few connections and default
 * settings.
 */
export class PgBouncer implements AsyncDisposable {
  /** URL of the database through the pooler. */
  readonly url: string;
  readonly #folder = mkdtempSync(join(tmpdir(), "floodgate-pgbouncer-"));
  readonly #port: number;
  #child: Bun.Subprocess | undefined;

  private constructor(port: number, user: string) {
    this.#port = port;
    this.url = `postgres://${user}:any@127.0.0.1:${port}/app`;
  }

  /**
   * Starts a pooler; `databaseUrl` has a search_path, which clients of a pooler cannot set
   * themselves.
   */
  static async start(databaseUrl: string, connections = 3): Promise<PgBouncer> {
    await needPrograms(NEED);
    const { hostname, port, username, password, pathname, searchParams } = new URL(databaseUrl);
    const pooler = new PgBouncer(await freePort(), username);
    const app = [
      `host=${hostname} port=${port} user=${username} password=${password} dbname=${pathname.slice(1)}`,
      `connect_query='set search_path to ${searchParams.get("search_path")}'`,
    ].join(" ");
    await Bun.write(
      join(pooler.#folder, "pgbouncer.ini"),
      `[databases]
app = ${app}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${pooler.#port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = ${connections}
max_client_conn = 200
`,
    );
    chmodSync(pooler.#folder, 0o755);
    await pooler.restart();
    return pooler;
  }

  async restart(): Promise<void> {
    const output = Bun.file(join(this.#folder, "output"));
    const path = join(this.#folder, "pgbouncer.ini");
    // PgBouncer refuses to run as root.
    const user = process.getuid?.() === 0 ? ["-u", "nobody"] : [];
    const child = Bun.spawn([programPath("pgbouncer") ?? "", ...user, path], {
      env: process.env,
      stdin: "ignore",
      stdout: output,
      stderr: output,
    });
    this.#child = child;
    await eventually(
      "pgbouncer listens",
      async () => {
        if (child.exitCode !== null) throw new Error(`pgbouncer: ${await output.text()}`);
        return await Bun.connect({
          hostname: "127.0.0.1",
          port: this.#port,
          socket: { data() {} },
        }).then(
          (socket) => {
            socket.end();
            return true;
          },
          () => false,
        );
      },
      START_MS_MAX,
    );
  }

  /** Kills PgBouncer, like a crash. */
  async kill(): Promise<void> {
    this.#child?.kill("SIGKILL");
    await this.#child?.exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
