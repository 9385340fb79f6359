import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { Type } from "typebox";
import { Value } from "typebox/value";

const READY_TIMEOUT_MS = 30_000;
const POLL_MS = 25;
const LOG_TAIL_LINES = 12;

export const BENCH_DIR = import.meta.dir;
export const REPOSITORY = join(BENCH_DIR, "..");

const Announcement = Type.Object({ port: Type.Integer({ minimum: 1 }) });

export type Running = AsyncDisposable & { pid: number; url: string };

type Spawn = {
  /** Program to run, by default this Bun. */
  program?: string;
  script?: string;
  args?: string[];
  env?: Record<string, string>;
  /** Core to run on, if the run is pinned. */
  core?: number | undefined;
  /** Time limit of a command. */
  timeoutMs?: number;
};

/**
 * Starts processes, logs their output, and ends them; the reaper does so if this process is killed.
 */
export class Processes implements AsyncDisposable {
  readonly #folder: string;
  readonly #reaper: Bun.Subprocess;
  readonly #running = new Set<Bun.Subprocess>();
  #logs = 0;

  constructor(folder: string) {
    this.#folder = folder;
    this.#reaper = Bun.spawn([process.execPath, join(BENCH_DIR, "reaper.ts")], {
      stdio: ["ignore", "ignore", "inherit"],
      ipc: () => {},
      // Runs in a session of its own, because it must outlive the bench, which Ctrl-C ends.
      detached: true,
    });
    this.#reaper.send({ folder });
  }

  /** Starts one of the bench's own servers, which announces its port. */
  async startHelper(spawn: Spawn): Promise<Running> {
    const { promise, resolve } = Promise.withResolvers<unknown>();
    const { child, log } = this.spawn(spawn, resolve);
    const timer = setTimeout(resolve, READY_TIMEOUT_MS);
    const message = await Promise.race([promise, child.exited]);
    clearTimeout(timer);
    if (!Value.Check(Announcement, message))
      throw new Error(`${spawn.script} did not start:\n${tail(log)}`);
    return this.#asRunning(child, `http://127.0.0.1:${message.port}`);
  }

  /**
   * Starts a server; resolves when its /readyz answers 200, over TLS if it has a certificate of its
   * own.
   */
  async startServer(spawn: Spawn & { port: number; ca?: string }): Promise<Running> {
    const { child, log } = this.spawn(spawn);
    const { port, ca } = spawn;
    const url = `${ca === undefined ? "http" : "https"}://127.0.0.1:${port}`;
    const deadline = Date.now() + READY_TIMEOUT_MS;
    while (!(await isReady(url, ca))) {
      if (child.exitCode !== null || Date.now() > deadline) {
        await this.#end(child);
        throw new Error(`the server under test did not become ready:\n${tail(log)}`);
      }
      await Bun.sleep(POLL_MS);
    }
    return this.#asRunning(child, url);
  }

  /** Starts a process without waiting until it is ready. */
  start(spawn: Spawn): Running {
    return this.#asRunning(this.spawn(spawn).child, "");
  }

  /** Runs a command to its end and returns what it wrote on stdout. */
  async run(command: Spawn): Promise<string> {
    const child = Bun.spawn(commandLine(command), {
      cwd: REPOSITORY,
      env: { ...baseEnvironment(), ...command.env },
      stdio: ["ignore", "pipe", "pipe"],
      timeout: command.timeoutMs ?? READY_TIMEOUT_MS,
    });
    const [stdout, stderr, code] = await Promise.all([
      child.stdout.text(),
      child.stderr.text(),
      child.exited,
    ]);
    if (code === 0) return stdout;
    throw new Error(`${command.args?.join(" ")} failed with ${code}: ${stderr.trim()}`);
  }

  spawn(spawn: Spawn, onMessage?: (message: unknown) => void) {
    const log = join(this.#folder, `${this.#logs++}.log`);
    const output = openSync(log, "w");
    const child = Bun.spawn(commandLine(spawn), {
      cwd: REPOSITORY,
      env: { ...baseEnvironment(), ...spawn.env },
      stdio: ["ignore", output, output],
      ...(onMessage !== undefined && { ipc: onMessage }),
    });
    closeSync(output);
    this.#running.add(child);
    this.#reaper.send({ watch: child.pid });
    void this.#forget(child);
    return { child, log };
  }

  async #forget(child: Bun.Subprocess): Promise<void> {
    await child.exited;
    this.#running.delete(child);
    if (this.#reaper.exitCode === null) this.#reaper.send({ forget: child.pid });
  }

  /** Kills the process at once, which the measured server promises to survive. */
  async #end(child: Bun.Subprocess): Promise<void> {
    child.kill("SIGKILL");
    await child.exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#running].map(async (child) => this.#end(child)));
    this.#reaper.kill("SIGKILL");
    await this.#reaper.exited;
  }

  #asRunning(child: Bun.Subprocess, url: string): Running {
    return { pid: child.pid, url, [Symbol.asyncDispose]: async () => this.#end(child) };
  }
}

export function tail(path: string): string {
  return readFileSync(path, "utf8").trimEnd().split("\n").slice(-LOG_TAIL_LINES).join("\n");
}

function commandLine(spawn: Spawn): string[] {
  const { program = process.execPath, script, args = [], core } = spawn;
  const pin = core === undefined ? [] : ["taskset", "-c", String(core)];
  return [...pin, program, ...(script === undefined ? [] : [script]), ...args];
}

/** Keeps the caller's configuration from reaching a measured process by accident. */
function baseEnvironment(): Record<string, string> {
  const kept = ["PATH", "HOME", "TMPDIR", "LANG"];
  return Object.fromEntries(
    kept.flatMap((name) => (process.env[name] === undefined ? [] : [[name, process.env[name]]])),
  );
}

async function isReady(url: string, ca: string | undefined): Promise<boolean> {
  try {
    const response = await fetch(`${url}/readyz`, {
      signal: AbortSignal.timeout(2000),
      ...(ca !== undefined && { tls: { ca } }),
    });
    await response.arrayBuffer();
    return response.status === 200;
  } catch {
    return false;
  }
}
