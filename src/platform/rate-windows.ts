export type RateWindow = { count: number; endsMs: number };

/**
 * Counts by key, each in windows of a fixed length that begin with the key's first request. The number of keys is bounded, whoever makes
 * them up: when there is no room for another one the window that began first is forgotten.
 */
export class RateWindows {
  readonly #windowMs: number;
  readonly #keysMax: number;
  readonly #now: () => number;
  /** In the order in which the windows began, which is nearly that in which they end. */
  readonly #byKey = new Map<string | number, RateWindow>();

  constructor(windowMs: number, keysMax: number, now: () => number = () => performance.now()) {
    this.#windowMs = windowMs;
    this.#keysMax = keysMax;
    this.#now = now;
  }

  /** How many keys it holds. */
  get size(): number {
    return this.#byKey.size;
  }

  /** Counts one more; `leftMs` is how long the window lasts yet. */
  count(key: string | number): { count: number; leftMs: number } {
    const nowMs = this.#now();
    let window = this.#byKey.get(key);
    if (window === undefined || window.endsMs <= nowMs)
      window = this.#begin(key, { count: 0, endsMs: nowMs + this.#windowMs }, nowMs);
    window.count++;
    return { count: window.count, leftMs: window.endsMs - nowMs };
  }

  /** Until then every count of the key is over any limit. */
  block(key: string | number, ms: number): void {
    const nowMs = this.#now();
    this.#begin(key, { count: Number.POSITIVE_INFINITY, endsMs: nowMs + ms }, nowMs);
  }

  #begin(key: string | number, window: RateWindow, nowMs: number): RateWindow {
    this.#byKey.delete(key);
    for (const [oldest, { endsMs }] of this.#byKey) {
      if (endsMs > nowMs && this.#byKey.size < this.#keysMax) break;
      this.#byKey.delete(oldest);
    }
    this.#byKey.set(key, window);
    return window;
  }
}
