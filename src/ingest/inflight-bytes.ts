import { unavailable } from "../platform/errors.ts";

/** A record that waits longer than this means that more is let in than the store takes. */
const DELAY_TARGET_MS = 5000;

/**
 * The bytes that this process holds for clients that wait: bodies being read and records not yet durable. Above the limit new
 * requests are refused at once. The limit follows the store: it falls when records wait too long and grows back with each commit in time.
 */
export class InflightBytes {
  readonly #max: number;
  readonly #step: number;
  #limit: number;
  #waiting: (() => void)[] = [];
  bytes = 0;

  constructor(max: number, step: number) {
    this.#max = max;
    this.#step = step;
    this.#limit = max;
  }

  /** Throws 503 when there is no room. Give the bytes back with `release`. */
  reserve(bytes: number): void {
    if (this.bytes + bytes > this.#limit && this.bytes > 0)
      throw unavailable("too much is being stored at the moment, send it again", 1);
    this.bytes += bytes;
  }

  release(bytes: number): void {
    this.bytes -= bytes;
    if (this.bytes < this.#limit) for (const resume of this.#waiting.splice(0)) resume();
  }

  /** Bytes that were let in before and are held now. */
  add(bytes: number): void {
    this.bytes += bytes;
  }

  /** Records that waited for `delayMs` are settled. */
  remove(bytes: number, delayMs: number): void {
    this.#limit =
      delayMs > DELAY_TARGET_MS
        ? Math.max(2 * this.#step, (this.bytes * DELAY_TARGET_MS) / delayMs)
        : Math.min(this.#max, this.#limit + this.#step);
    this.release(bytes);
  }

  /** Resolves when there is room: an upload that has begun stops reading instead of failing. */
  async room(): Promise<void> {
    while (this.bytes >= this.#limit) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#waiting.push(resolve);
      await promise;
    }
  }
}
