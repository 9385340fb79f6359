import { setTimeout } from "node:timers/promises";

import { Type } from "typebox";
import { Value } from "typebox/value";

import { EXIT_AWAY, UsageError } from "../platform/errors.ts";
import { Heartbeats } from "./heartbeat.ts";
import { MetricsRelay } from "../platform/telemetry/metrics-relay.ts";
import { within } from "../platform/lifecycle.ts";
import { type Log } from "../platform/logger.ts";

const BACKOFF_MS_MIN = 250;
const BACKOFF_MS_MAX = 5000;
const CRASHES_MAX = 5;
// One that lived so long did not die of how it was started.
const SETTLED_MS = 10_000;
const STOP_MS_MAX = 15_000;

const Ready = Type.Object({ ready: Type.Literal(true), url: Type.Optional(Type.String()) });

/** A command of this program as a process of its own. */
export type Program = { args: string[]; env: Record<string, string | undefined> };

type Child = { exited: Promise<number>; ready: Promise<string | undefined> };

/** Tells the supervisor, if there is one, that this process is at its work; `url` is where it listens. */
export function tellReady(url?: string): void {
  process.send?.({ ready: true, url });
}

/**
 * Keeps processes running: one that dies or answers no more is started again, after a growing pause while it keeps dying. As long as what it needs is away
 * that is no crash: an outage must not end the processes that wait for its end.
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
    // Nobody may be listening.
    this.#failed.promise.catch(() => undefined);
  }

  /** Rejects when a process crashes again and again. */
  get failed(): Promise<never> {
    return this.#failed.promise;
  }

  /** Resolves when the process is ready, with where it listens. Throws UsageError when it does not come so far. */
  async keep(program: Program): Promise<string | undefined> {
    const first = this.#spawn(program);
    const url = await first.ready;
    this.#kept.push(this.#keepOn(program, first));
    return url;
  }

  /** Ends all of them, and waits until they have. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort();
    for (const child of this.#running) child.kill("SIGTERM");
    const ended = Promise.all([...this.#running].map(({ exited }) => exited));
    if (!(await within(STOP_MS_MAX, ended)))
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
      // Its end tells all there is to know.
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
      // Its end tells the child that this process is gone.
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
