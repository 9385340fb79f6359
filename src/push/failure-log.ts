import { type Clock } from "../platform/clock.ts";
import { type Log } from "../platform/logger.ts";

const WINDOW_MS = 10_000;
/** A server that is no provider may give any number of them. */
const REASONS_MAX = 10;

/** Tells the operator why pushes fail: each reason once in a while, however many devices it concerns. */
export class FailureLog {
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #told = new Set<string>();
  #sinceMs = Number.NEGATIVE_INFINITY;

  constructor(log: Log, clock: Clock) {
    this.#log = log;
    this.#clock = clock;
  }

  tell(platform: string, reason: string): void {
    const nowMs = this.#clock.elapsedMs();
    if (nowMs - this.#sinceMs >= WINDOW_MS) {
      this.#told.clear();
      this.#sinceMs = nowMs;
    }
    const key = `${platform} ${reason}`;
    if (this.#told.has(key) || this.#told.size >= REASONS_MAX) return;
    this.#told.add(key);
    this.#log.warn({ platform, reason }, "pushes fail");
  }
}
