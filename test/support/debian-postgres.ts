import { chownSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { eventually } from "./eventually.ts";
import { freePort } from "./free-port.ts";
import { needPrograms } from "./packages.ts";

const BINARIES = "/usr/lib/postgresql/15/bin";
const NEED = {
  programs: [`${BINARIES}/postgres`],
  packages: ["postgresql-15"],
  otherwise: "The tests need Debian's PostgreSQL 15: install postgresql-15",
};
const NOBODY = 65_534;
const START_MS_MAX = 20_000;

export const PASSWORD = "p@ss/w:rd?#%&ö [x]";

/**
 * Debian's PostgreSQL 15 with TLS certificates, which can be reconfigured, stopped and started. Its
 * user is `floodgate`.
 */
export class DebianPostgres implements AsyncDisposable {
  readonly port: number;
  readonly folder: string;
  #child: Bun.Subprocess | undefined;

  private constructor(port: number, folder: string) {
    this.port = port;
    this.folder = folder;
  }

  static async start(): Promise<DebianPostgres> {
    await needPrograms(NEED);
    const folder = mkdtempSync(join(tmpdir(), "floodgate-debian-"));
    const server = new DebianPostgres(await freePort(), folder);
    await server.#initialise();
    await server.restart();
    return server;
  }

  /** Returns a path in the server's folder. */
  path(name: string): string {
    return join(this.folder, name);
  }

  /** Returns a URL of the server; `query` begins with "?". */
  url(query = "", host = "127.0.0.1"): string {
    return `postgres://floodgate:${encodeURIComponent(PASSWORD)}@${host}:${this.port}/postgres${query}`;
  }

  async restart(): Promise<void> {
    await this.stop();
    const output = Bun.file(this.path("output"));
    const settings = {
      port: this.port,
      listen_addresses: "127.0.0.1,::1",
      unix_socket_directories: this.folder,
      ssl: "on",
      ssl_ca_file: this.path("ca.crt"),
      ssl_cert_file: this.path("server.crt"),
      ssl_key_file: this.path("server.key"),
      fsync: "off",
    };
    const args = Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
    this.#child = Bun.spawn(
      [...asNobody(), `${BINARIES}/postgres`, "-D", this.path("data"), ...args],
      {
        env: { ...process.env, LC_ALL: "C" },
        stdin: "ignore",
        stdout: output,
        stderr: output,
      },
    );
    const child = this.#child;
    await eventually(
      "PostgreSQL answers",
      async () => {
        if (child.exitCode !== null) throw new Error(`postgres: ${await output.text()}`);
        return (
          Bun.spawnSync([`${BINARIES}/pg_isready`, "-h", this.folder, "-p", String(this.port)])
            .exitCode === 0
        );
      },
      START_MS_MAX,
    );
  }

  async stop(): Promise<void> {
    this.#child?.kill("SIGINT");
    await this.#child?.exited;
  }

  /** Runs statements as superuser over the socket, whatever `allow` says. */
  query(...statements: string[]): string {
    const commands = statements.flatMap((statement) => ["-c", statement]);
    return run([
      `${BINARIES}/psql`,
      "-h",
      this.folder,
      "-p",
      String(this.port),
      "-U",
      "postgres",
      "-d",
      "postgres",
      "-qAt",
      ...commands,
    ]);
  }

  /**
   * Replaces the rules of pg_hba.conf, effective at once. The superuser can always connect through
   * the socket.
   */
  async allow(...lines: string[]): Promise<void> {
    const rules = ["local all postgres trust", ...lines].join("\n");
    await Bun.write(this.path("data/pg_hba.conf"), `${rules}\n`);
    this.query("select pg_reload_conf()");
    await Bun.sleep(100);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }

  async #initialise(): Promise<void> {
    makeCertificates(this.folder);
    own(this.folder, ...["server.key", "server.crt", "ca.crt"].map((name) => this.path(name)));
    const data = this.path("data");
    run([
      ...asNobody(),
      `${BINARIES}/initdb`,
      "-D",
      data,
      "-U",
      "postgres",
      "-A",
      "trust",
      "--no-sync",
    ]);
    await this.restart();
    this.query(
      "set password_encryption = 'scram-sha-256'",
      `create role floodgate login superuser password '${PASSWORD}'`,
    );
    await this.allow("local all all scram-sha-256", "host all all all scram-sha-256");
  }
}

/**
 * Makes a CA with a server certificate for `localhost` and a client certificate, and another CA.
 */
function makeCertificates(folder: string): void {
  const make = (script: string) => run(["sh", "-ec", script], folder);
  const authority = (name: string) =>
    make(
      `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -keyout ${name}.key -out ${name}.crt -subj /CN=${name}`,
    );
  const signed = (name: string, subject: string, names: string) =>
    make(`openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ${name}.key -out ${name}.csr -subj /CN=${subject}
      printf '${names}' > ${name}.ext
      openssl x509 -req -in ${name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile ${name}.ext -out ${name}.crt
      chmod 600 ${name}.key`);
  authority("ca");
  authority("other");
  signed("server", "localhost", "subjectAltName=DNS:localhost");
  signed("client", "floodgate", "extendedKeyUsage=clientAuth");
}

function own(...paths: string[]): void {
  if (process.getuid?.() === 0) for (const path of paths) chownSync(path, NOBODY, NOBODY);
}

/** PostgreSQL refuses to run as root. */
function asNobody(): string[] {
  if (process.getuid?.() !== 0) return [];
  return ["setpriv", "--reuid", `${NOBODY}`, "--regid", `${NOBODY}`, "--clear-groups", "--"];
}

function run(command: string[], cwd?: string): string {
  const { exitCode, stdout, stderr } = Bun.spawnSync(command, {
    env: { ...process.env, LC_ALL: "C" },
    ...(cwd !== undefined && { cwd }),
  });
  if (exitCode !== 0) throw new Error(`${command[0]}: ${stderr.toString()}${stdout.toString()}`);
  return stdout.toString().trim();
}
