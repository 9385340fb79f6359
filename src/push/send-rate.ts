import { type Clock } from "../platform/clock.ts";
import { TokenBucket } from "../platform/token-bucket.ts";

/** Burst after a rest, in milliseconds' worth of sends. */
const BURST_MS = 20;

type Waiting = { signal: AbortSignal; resolve: () => void; reject: (reason: unknown) => void };

/** Limits the sends per second, in the order in which they ask. */
export class SendRate {
  readonly #sends: TokenBucket;
  readonly #closing: AbortSignal;
  #waiting: Waiting[] = [];
  #timer: NodeJS.Timeout | undefined;
  readonly #signals = new WeakSet<AbortSignal>();

  constructor(perSecond: number, clock: Clock, closing: AbortSignal) {
    const burst = Math.max(1, (perSecond * BURST_MS) / 1000);
    this.#sends = new TokenBucket(perSecond, burst, () => clock.elapsedMs());
    this.#closing = closing;
  }

  /**
   * Waits for its turn. Returns undefined if that is now, because a promise would cost each send a
   * turn of the event loop. Rejects with the reason of the signal, or of the closing.
   */
  turn(signal: AbortSignal): Promise<void> | undefined {
    if (this.#waiting.length === 0 && this.#sends.tryTake(1)) return undefined;
    return this.#wait(signal);
  }

  async #wait(signal: AbortSignal): Promise<void> {
    this.#listen(signal);
    this.#listen(this.#closing);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#waiting.push({ signal, resolve, reject });
    if (this.#timer === undefined) this.#wake();
    await promise;
  }

  /** Adds one listener per signal, however many wait with it. */
  #listen(signal: AbortSignal): void {
    signal.throwIfAborted();
    if (this.#signals.has(signal)) return;
    this.#signals.add(signal);
    signal.addEventListener("abort", () => this.#end(signal), { once: true });
  }

  #end(signal: AbortSignal): void {
    const all = this.#waiting;
    this.#waiting = [];
    for (const one of all)
      if (signal === this.#closing || signal === one.signal) one.reject(signal.reason);
      else this.#waiting.push(one);
  }

  #wake(): void {
    this.#timer = setTimeout(() => this.#release(), this.#sends.waitMs(1));
  }

  #release(): void {
    let released = 0;
    for (const { resolve } of this.#waiting) {
      if (!this.#sends.tryTake(1)) break;
      resolve();
      released += 1;
    }
    this.#waiting.splice(0, released);
    this.#timer = undefined;
    if (this.#waiting.length > 0) this.#wake();
  }
}
