import { type Clock } from "./clock.ts";
import { type Log } from "./log.ts";

const MEASURE_MS = 5000;
const FIRST_MEASURES = 3;
// What machines that are set right differ by, and what is not worth a step.
const STEP_MS_MIN = 200;
/** From here on an operator should know. */
export const SKEW_MS_TOLD = 2000;
// A smaller step back is waited out: time stands still for as long.
const BACK_MS_MAX = 1000;

/**
 * The time of the database, so that processes on machines whose clocks differ mean the same by it. It goes on by this machine's
 * monotonic clock: steps of its wall clock do not matter, and nobody is asked for the time.
 */
export class DatabaseClock implements Clock, Disposable {
  readonly #ping: () => Promise<number>;
  readonly #log: Log;
  /** what the monotonic clock lacks to the epoch */
  #baseMs = Date.now() - performance.now();
  /** how wrong the database's time may have been read; nothing while this machine's own does */
  #doubtMs = 0;
  #lastMs = 0;
  #skewMs = 0;
  #isTold = false;
  #timer: NodeJS.Timeout | undefined;

  private constructor(ping: () => Promise<number>, log: Log) {
    this.#ping = ping;
    this.#log = log;
  }

  /** Resolves when it has the database's time. `ping` asks for that, in epoch ms; while it throws the time just goes on. */
  static async open(ping: () => Promise<number>, log: Log): Promise<DatabaseClock> {
    const clock = new DatabaseClock(ping, log);
    // The first waits for a connection to be made.
    for (let times = 0; times < FIRST_MEASURES; times++) await clock.#measure();
    clock.#keepOn();
    return clock;
  }

  /** The same, but it begins with this machine's time, whether the database is there or not. */
  static start(ping: () => Promise<number>, log: Log): DatabaseClock {
    const clock = new DatabaseClock(ping, log);
    clock.#measure().catch(() => undefined);
    clock.#keepOn();
    return clock;
  }

  readonly epochMs = (): number => {
    const ms = Math.floor(this.#baseMs + performance.now());
    if (ms >= this.#lastMs || ms < this.#lastMs - BACK_MS_MAX) this.#lastMs = ms;
    return this.#lastMs;
  };

  readonly elapsedMs = (): number => performance.now();

  readonly skewMs = (): number => this.#skewMs;

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  #keepOn(): void {
    this.#timer = setInterval(() => {
      this.#measure().catch(() => undefined);
    }, MEASURE_MS);
    this.#timer.unref();
  }

  async #measure(): Promise<void> {
    const askedMs = performance.now();
    const databaseMs = await this.#ping();
    const answeredMs = performance.now();
    // It was read at some moment between.
    const doubtMs = (answeredMs - askedMs) / 2;
    const baseMs = databaseMs - askedMs - doubtMs;
    const isWrong = Math.abs(baseMs - this.#baseMs) - doubtMs > STEP_MS_MIN;
    if (isWrong || doubtMs < this.#doubtMs / 2) {
      this.#baseMs = baseMs;
      this.#doubtMs = doubtMs;
    }
    const skewMs = Date.now() - answeredMs - baseMs;
    // A slow answer tells nothing new.
    if (Math.abs(skewMs - this.#skewMs) > doubtMs) this.#skewMs = skewMs;
    this.#tell();
  }

  /** Once for each time that it goes wrong. */
  #tell(): void {
    const isWrong = Math.abs(this.#skewMs) >= SKEW_MS_TOLD;
    if (isWrong && !this.#isTold)
      this.#log.warn(
        { skewSeconds: Math.round(this.#skewMs / 1000) },
        "this machine's clock is not that of PostgreSQL: the time of PostgreSQL is used",
      );
    this.#isTold = isWrong;
  }
}
