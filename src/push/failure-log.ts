import { type Clock } from "../platform/clock.ts";
import { type Log } from "../platform/logger.ts";

const WINDOW_MS = 10_000;
/** Limit of reasons per window: a misconfigured base URL may give any number of them. */
const REASONS_MAX = 10;

/** Logs why pushes fail: each reason once per window, however many devices it concerns. */
export class FailureLog {
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #told = new Set<string>();
  #sinceMs = Number.NEGATIVE_INFINITY;

  constructor(log: Log, clock: Clock) {
    this.#log = log;
    this.#clock = clock;
  }

  warn(provider: string, reason: string): void {
    const nowMs = this.#clock.elapsedMs();
    if (nowMs - this.#sinceMs >= WINDOW_MS) {
      this.#told.clear();
      this.#sinceMs = nowMs;
    }
    const key = `${provider} ${reason}`;
    if (this.#told.has(key) || this.#told.size >= REASONS_MAX) return;
    this.#told.add(key);
    this.#log.warn({ platform: provider, reason }, "pushes fail");
  }
}
