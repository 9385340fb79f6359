import { type Clock } from "../clock.ts";
import { type Service, repeat } from "../lifecycle.ts";
import { type Log } from "../logger.ts";

const MEASURE_MS = 5000;
const FIRST_MEASURES = 3;
// Smallest difference that is corrected: synchronized clocks differ by less.
const STEP_MS_MIN = 200;
/** Smallest difference of which the operator is warned. */
export const SKEW_MS_TOLD = 2000;
// Largest step back that is bridged by stopping the clock; a larger one is applied.
const BACK_MS_MAX = 1000;

/**
 * Clock that follows the time of the database, so that processes on machines with different clocks
 * agree. Between measurements it advances by the monotonic clock, so steps of this machine's wall
 * clock do not matter, and reading it is local.
 */
export class DatabaseClock implements Clock, Service {
  readonly #ping: () => Promise<number>;
  readonly #log: Log;
  /** Offset from the monotonic clock to epoch time. */
  #baseMs = Date.now() - performance.now();
  /** Uncertainty of the measured offset; 0 while the offset is that of this machine's own clock. */
  #doubtMs = 0;
  #lastMs = 0;
  #skewMs = 0;
  #isTold = false;

  /** `ping` returns the database's time in epoch ms; while it throws the clock just keeps running. */
  constructor(ping: () => Promise<number>, log: Log) {
    this.#ping = ping;
    this.#log = log;
  }

  /**
   * Resolves once the database's time is known; until then the time is this machine's. Rejects if
   * the database is away, and follows its time nevertheless once it is there.
   */
  async start(signal: AbortSignal): Promise<void> {
    repeat(MEASURE_MS, signal, () => {
      this.#measure().catch(() => undefined);
    });
    // Measure several times: the first includes the time to connect.
    for (let times = 0; times < FIRST_MEASURES; times++) await this.#measure();
  }

  readonly epochMs = (): number => {
    const ms = Math.floor(this.#baseMs + performance.now());
    if (ms >= this.#lastMs || ms < this.#lastMs - BACK_MS_MAX) this.#lastMs = ms;
    return this.#lastMs;
  };

  readonly elapsedMs = (): number => performance.now();

  readonly skewMs = (): number => this.#skewMs;

  async #measure(): Promise<void> {
    const askedMs = performance.now();
    const databaseMs = await this.#ping();
    const answeredMs = performance.now();
    // The database read its clock at some moment in between.
    const doubtMs = (answeredMs - askedMs) / 2;
    const baseMs = databaseMs - askedMs - doubtMs;
    const isWrong = Math.abs(baseMs - this.#baseMs) - doubtMs > STEP_MS_MIN;
    if (isWrong || doubtMs < this.#doubtMs / 2) {
      this.#baseMs = baseMs;
      this.#doubtMs = doubtMs;
    }
    const skewMs = Date.now() - answeredMs - baseMs;
    // Ignore changes within the uncertainty of a slow answer.
    if (Math.abs(skewMs - this.#skewMs) > doubtMs) this.#skewMs = skewMs;
    this.#tell();
  }

  /** Warns once each time that the clocks begin to differ. */
  #tell(): void {
    const isWrong = Math.abs(this.#skewMs) >= SKEW_MS_TOLD;
    if (isWrong && !this.#isTold)
      this.#log.warn(
        { skewSeconds: Math.round(this.#skewMs / 1000) },
        "this machine's clock differs from PostgreSQL's: the time of PostgreSQL is used",
      );
    this.#isTold = isWrong;
  }
}
