import { LRUCache } from "lru-cache";

import { AppError, unavailable } from "./errors.ts";
import { type Log } from "./log.ts";
import { type Metrics } from "./metrics.ts";
import { ObjectDamaged, ObjectMissing } from "./objects.ts";

const LOGGED_MS = 3_600_000;
const LOGGED_MAX = 10_000;
const AWAY_LOGGED_MS = 10_000;

/** Stored bytes that cannot be had any more: their object is gone, or is not what was written. */
export class Lost extends Error {
  override readonly name = "Lost";
  readonly reason: "missing" | "damaged";
  readonly key: string;

  constructor(reason: Lost["reason"], key: string, cause: unknown) {
    super(`${key} is ${reason}`, { cause });
    this.reason = reason;
    this.key = key;
  }

  /** Undefined for errors of a store that is merely away. */
  static from(error: unknown, key: string): Lost | undefined {
    if (error instanceof ObjectMissing) return new Lost("missing", key, error);
    return error instanceof ObjectDamaged ? new Lost("damaged", key, error) : undefined;
  }

  /** The answer to a request for just these bytes. A restored backup would bring them back, so nobody may keep it. */
  toAppError(what: string): AppError {
    const message = this.reason === "missing" ? "gone from the store" : "damaged in the store";
    return new AppError("gone", `${what} is ${message}`, {
      cause: this,
      headers: { "cache-control": "no-store" },
      reason: "lost",
    });
  }
}

/** Tells operators what readers meet. */
export class ReadFaults {
  readonly #metrics: Metrics;
  readonly #log: Log;
  readonly #logged = new LRUCache<string, true>({ max: LOGGED_MAX, ttl: LOGGED_MS });
  #awayLoggedMs = Number.NEGATIVE_INFINITY;

  constructor(metrics: Metrics, log: Log) {
    this.#metrics = metrics;
    this.#log = log;
  }

  /** Counts it, and logs its object once an hour, however often it is asked for. `about`: what was asked for. */
  lost({ reason, key, cause }: Lost, about: object): void {
    this.#metrics.missingRecords.inc({ reason });
    if (this.#logged.has(key)) return;
    this.#logged.set(key, true);
    this.#log.error({ key, reason, ...about, err: cause }, `a stored object is ${reason}`);
  }

  /** The answer while the store is away. Logged every ten seconds at most: every reader meets it. */
  away(cause: unknown, key: string): AppError {
    const nowMs = performance.now();
    if (nowMs - this.#awayLoggedMs > AWAY_LOGGED_MS) {
      this.#awayLoggedMs = nowMs;
      this.#log.warn({ err: cause, key }, "the object store cannot be read");
    }
    return unavailable("the object store is away, try again", 5, { cause, reason: "store" });
  }
}
