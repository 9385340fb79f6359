import { setTimeout } from "node:timers/promises";

import { Type } from "typebox";
import { Value } from "typebox/value";

import { EXIT_AWAY, UsageError } from "../platform/errors.ts";
import { Heartbeats } from "./heartbeat.ts";
import { MetricsRelay } from "../platform/telemetry/metrics-relay.ts";
import { doneWithin } from "../platform/time-limit.ts";
import { type Log } from "../platform/logger.ts";

const BACKOFF_MS_MIN = 250;
const BACKOFF_MS_MAX = 5000;
const CRASHES_MAX = 5;
// A process that ran this long did not fail at start-up: its crashes are counted anew.
const SETTLED_MS = 10_000;
const STOP_MS_MAX = 15_000;

const Ready = Type.Object({ ready: Type.Literal(true), url: Type.Optional(Type.String()) });

/** A command of this program that runs as its own process. */
export type Program = { args: string[]; env: Record<string, string | undefined> };

type Child = { exited: Promise<number>; ready: Promise<string | undefined> };

/** Tells the supervisor, if there is one, that this process is ready, and the URL it listens on. */
export function tellReady(url?: string): void {
  process.send?.({ ready: true, url });
}

/**
 * Keeps processes running: restarts each one that exits or stops answering, after a pause that grows
 * while it keeps failing. Gives up after repeated crashes. An exit because a dependency is
 * unavailable is not a crash: processes must survive an outage.
 */
export class Supervisor implements AsyncDisposable {
  readonly #log: Log;
  readonly #heartbeats: Heartbeats;
  readonly #metrics: MetricsRelay;
  readonly #stopping = new AbortController();
  readonly #running = new Set<Bun.Subprocess>();
  readonly #kept: Promise<void>[] = [];
  readonly #failed = Promise.withResolvers<never>();

  constructor(log: Log) {
    this.#log = log;
    this.#heartbeats = new Heartbeats(log);
    this.#metrics = new MetricsRelay((peer) => this.#heartbeats.isSilent(peer));
    // Avoid an unhandled rejection if the caller does not wait for `failed`.
    this.#failed.promise.catch(() => undefined);
  }

  /** Rejects when a process has crashed too often in a row. */
  get failed(): Promise<never> {
    return this.#failed.promise;
  }

  /**
   * Starts a process and keeps it running. Returns its URL, if it listens, once it is ready. Throws
   * UsageError if it ends before that.
   */
  async keep(program: Program): Promise<string | undefined> {
    const first = this.#spawn(program);
    const url = await first.ready;
    this.#kept.push(this.#keepOn(program, first));
    return url;
  }

  /** Ends all processes and waits for their exit. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort();
    for (const child of this.#running) child.kill("SIGTERM");
    const ended = Promise.all([...this.#running].map(({ exited }) => exited));
    if (!(await doneWithin(STOP_MS_MAX, ended)))
      for (const child of this.#running) child.kill("SIGKILL");
    await ended;
    await Promise.all(this.#kept);
    this.#heartbeats[Symbol.dispose]();
  }

  async #keepOn(program: Program, first: Child): Promise<void> {
    const { signal } = this.#stopping;
    let tries = 0;
    let crashes = 0;
    for (let child = first; ; child = this.#spawn(program)) {
      // Ignore this rejection: the exit code says the same.
      child.ready.catch(() => undefined);
      const startedMs = performance.now();
      const code = await child.exited;
      if (signal.aborted) return;
      const isSettled = performance.now() - startedMs > SETTLED_MS;
      tries = isSettled ? 1 : tries + 1;
      if (code !== EXIT_AWAY) crashes = isSettled ? 1 : crashes + 1;
      const what = program.args.join(" ");
      if (crashes > CRASHES_MAX) {
        this.#failed.reject(new Error(`${what} ended ${crashes} times in a row, see its log`));
        return;
      }
      const pauseMs = Math.min(BACKOFF_MS_MIN * 2 ** (tries - 1), BACKOFF_MS_MAX);
      this.#log.error({ process: what, code, pauseMs }, "a process ended, it is started again");
      await setTimeout(pauseMs, undefined, { signal }).catch(() => undefined);
      if (signal.aborted) return;
    }
  }

  #spawn({ args, env }: Program): Child {
    const ready = Promise.withResolvers<string | undefined>();
    const child = Bun.spawn([process.execPath, Bun.main, ...args], {
      env: { ...process.env, ...env },
      stdio: ["ignore", "inherit", "inherit"],
      // The child sees by the end of this channel that the supervisor has exited.
      ipc: (message: unknown) => {
        if (this.#heartbeats.take(child, message)) return;
        if (!Value.Check(Ready, message)) return this.#metrics.take(child, message);
        this.#metrics.add(child);
        ready.resolve(message.url);
      },
    });
    this.#running.add(child);
    this.#heartbeats.add(child, args.join(" "));
    const exited = child.exited.then((code) => {
      this.#running.delete(child);
      this.#heartbeats.remove(child);
      this.#metrics.remove(child);
      ready.reject(new UsageError(`${args.join(" ")} ended before it was ready, see its log`));
      return code;
    });
    return { exited, ready: ready.promise };
  }
}
