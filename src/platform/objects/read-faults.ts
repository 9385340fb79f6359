import { LRUCache } from "lru-cache";

import { AppError, unavailable } from "../errors.ts";
import { type Log } from "../logger.ts";
import { warnRarely } from "../rare-warnings.ts";
import { type Metrics } from "../telemetry/metrics.ts";
import { ObjectDamaged, ObjectMissing } from "./objects.ts";

const LOGGED_MS = 3_600_000;
const LOGGED_MAX = 10_000;

/** Thrown if stored bytes are lost: their object is missing or damaged. */
export class Lost extends Error {
  override readonly name = "Lost";
  readonly reason: "missing" | "damaged";
  readonly key: string;

  constructor(reason: Lost["reason"], key: string, cause: unknown) {
    super(`${key} is ${reason}`, { cause });
    this.reason = reason;
    this.key = key;
  }

  /** Returns undefined for errors of a store that is only unavailable. */
  static from(error: unknown, key: string): Lost | undefined {
    if (error instanceof ObjectMissing) return new Lost("missing", key, error);
    return error instanceof ObjectDamaged ? new Lost("damaged", key, error) : undefined;
  }

  /**
   * Returns the error for a request of exactly these bytes. Not cacheable, because restoring a
   * backup would bring them back.
   */
  toAppError(what: string): AppError {
    const message = this.reason === "missing" ? "gone from the store" : "damaged in the store";
    return new AppError("gone", `${what} is ${message}`, {
      cause: this,
      headers: { "cache-control": "no-store" },
      reason: "lost",
    });
  }
}

type OnLost = (key: string) => Promise<void>;

/** Reports read failures to operators, and lost objects to `onLost`. */
export class ReadFaults {
  readonly #metrics: Metrics;
  readonly #log: Log;
  readonly #onLost: OnLost;
  readonly #logged = new LRUCache<string, true>({ max: LOGGED_MAX, ttl: LOGGED_MS });

  constructor(metrics: Metrics, log: Log, onLost: OnLost) {
    this.#metrics = metrics;
    this.#log = log;
    this.#onLost = onLost;
  }

  /**
   * Counts lost records, and reports their object at most once an hour. `about` says what was
   * requested.
   */
  lost({ reason, key, cause }: Lost, about: object, records = 1): void {
    this.#metrics.missingRecords.inc({ reason }, records);
    if (this.#logged.has(key)) return;
    this.#logged.set(key, true);
    this.#log.error({ key, reason, ...about, err: cause }, `a stored object is ${reason}`);
    this.#onLost(key).catch((error: unknown) => {
      // The next read tries again.
      this.#logged.delete(key);
      this.#log.warn({ err: error, key }, "a lost object could not be marked");
    });
  }

  /** Logs, at a limited rate, that the store is unavailable; returns the error for the request. */
  away(cause: unknown, key: string): AppError {
    warnRarely(this.#log, { err: cause, key }, "the object store cannot be read");
    return unavailable("the object store is away, try again", 5, { cause, reason: "store" });
  }
}
