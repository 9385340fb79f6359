import { type Service, repeat } from "./lifecycle.ts";
import { type Log } from "./logger.ts";
import { warnRarely } from "./rare-warnings.ts";

const AGAIN_MS = 100;

export type SnapshotOptions<T> = {
  /** Name of the state, for log lines. */
  name: string;
  /** Value until the first read. */
  empty: T;
  read: () => Promise<T>;
  everyMs: number;
  log: Log;
};

/**
 * State of the database as this process last read it: no request waits for the database, and while
 * it is unavailable the last state stays in use. Changes by other processes appear within
 * `everyMs`.
 */
export class Snapshot<T> implements Service {
  readonly #options: SnapshotOptions<T>;
  #value: T;
  #reading: Promise<void> | undefined;
  /** The next read, which has not begun. */
  #next: Promise<void> | undefined;
  #readMs = Number.NEGATIVE_INFINITY;

  constructor(options: SnapshotOptions<T>) {
    this.#options = options;
    this.#value = options.empty;
  }

  get value(): T {
    return this.#value;
  }

  /** Reads now, and then every `everyMs`. Throws if the first read fails. */
  async start(signal: AbortSignal): Promise<void> {
    await this.#read();
    repeat(this.#options.everyMs, signal, () => this.refresh());
  }

  /**
   * Resolves after a read that began after this call, and so includes changes made just before.
   * Concurrent callers share a read; there is one at a time, and at most ten a second.
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

  /** Like `again`, but does not wait; logs a failure. */
  refresh(): void {
    this.again().catch((error: unknown) =>
      warnRarely(this.#options.log, { err: error }, `${this.#options.name} not refreshed`),
    );
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
