import { type Log } from "./logger.ts";
import { warnRarely } from "./rare-warnings.ts";

const AGAIN_MS = 100;

export type SnapshotOptions<T> = {
  /** what it is of, for the log */
  name: string;
  /** until the first reading */
  empty: T;
  read: () => Promise<T>;
  everyMs: number;
  log: Log;
};

/**
 * What this process last read: no request waits for the database, and while it is away the last state holds.
 * A change made elsewhere is there within `everyMs`.
 */
export class Snapshot<T> implements Disposable {
  readonly #options: SnapshotOptions<T>;
  #value: T;
  #reading: Promise<void> | undefined;
  /** the reading that begins next */
  #next: Promise<void> | undefined;
  #readMs = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: SnapshotOptions<T>) {
    this.#options = options;
    this.#value = options.empty;
  }

  get value(): T {
    return this.#value;
  }

  /** Reads now and from then on. Throws when the first reading fails. */
  async watch(): Promise<void> {
    await this.#read();
    this.#timer = setInterval(() => this.refresh(), this.#options.everyMs);
  }

  /**
   * A reading that begins after the call, for all who ask together: for what was made a moment ago. There is one at a time and at most
   * ten a second.
   */
  async again(): Promise<void> {
    this.#next ??= (async () => {
      await this.#reading?.catch(() => undefined);
      await Bun.sleep(this.#readMs + AGAIN_MS - performance.now());
      this.#next = undefined;
      await this.#read();
    })();
    await this.#next;
  }

  /** The same for who does not wait for it. */
  refresh(): void {
    this.again().catch((error: unknown) =>
      warnRarely(this.#options.log, { err: error }, `${this.#options.name} not refreshed`),
    );
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  async #read(): Promise<void> {
    this.#readMs = performance.now();
    this.#reading = this.#readOnce();
    await this.#reading;
  }

  async #readOnce(): Promise<void> {
    this.#value = await this.#options.read();
  }
}
