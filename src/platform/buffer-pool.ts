import { release } from "./gc.ts";

const SHRINK_EVERY_MS = 2000;

/**
 * Buffers of one size that are used again, because fresh memory costs page faults and zeroing. Keeps
 * as many as were lately in use at once, and none on an idle server.
 */
export class BufferPool {
  readonly #bytes: number;
  readonly #free: Uint8Array[] = [];
  #used = 0;
  /** Most buffers in use at once since the pool last shrank. */
  #peak = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(bytes: number) {
    this.#bytes = bytes;
  }

  /** Returns a buffer with arbitrary content. */
  take(): Uint8Array {
    this.#used++;
    this.#peak = Math.max(this.#peak, this.#used);
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(this.#bytes);
  }

  /** Takes a buffer back; `reusable` is false if something may still read it. */
  give(buffer: Uint8Array, reusable: boolean): void {
    this.#used--;
    if (!reusable) return;
    this.#free.push(buffer);
    if (this.#timer === undefined) this.#shrinkLater();
  }

  #shrinkLater(): void {
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      for (const buffer of this.#free.splice(Math.max(0, this.#peak - this.#used))) release(buffer);
      this.#peak = this.#used;
      if (this.#free.length > 0) this.#shrinkLater();
    }, SHRINK_EVERY_MS).unref();
  }
}
