type RateWindow = { count: number; endsMs: number };

/**
 * Fixed-window counters by key; a window begins with the key's first request. The number of keys is
 * bounded: there are two generations, and the older one is dropped when all its windows are over or
 * there is no more room.
 */
export class RateWindows {
  readonly #windowMs: number;
  readonly #keysMax: number;
  readonly #now: () => number;
  #young = new Map<string | number, RateWindow>();
  #old = new Map<string | number, RateWindow>();
  #turnsMs = Number.NEGATIVE_INFINITY;

  constructor(windowMs: number, keysMax: number, now: () => number = () => performance.now()) {
    this.#windowMs = windowMs;
    this.#keysMax = keysMax;
    this.#now = now;
  }

  /** Number of keys in memory. */
  get size(): number {
    return this.#young.size + this.#old.size;
  }

  /** Counts one more; `leftMs` is the time until the window ends. */
  count(key: string | number): { count: number; leftMs: number } {
    const nowMs = this.#now();
    let window = this.#young.get(key) ?? this.#old.get(key);
    if (window === undefined || window.endsMs <= nowMs)
      window = this.#begin(key, { count: 0, endsMs: nowMs + this.#windowMs }, nowMs);
    window.count++;
    return { count: window.count, leftMs: window.endsMs - nowMs };
  }

  /**
   * Makes every count of the key exceed any limit for `ms`, which is at most the length of a
   * window.
   */
  block(key: string | number, ms: number): void {
    const nowMs = this.#now();
    this.#begin(key, { count: Number.POSITIVE_INFINITY, endsMs: nowMs + ms }, nowMs);
  }

  #begin(key: string | number, window: RateWindow, nowMs: number): RateWindow {
    if (nowMs >= this.#turnsMs || this.#young.size >= this.#keysMax / 2) {
      this.#old = this.#young;
      this.#young = new Map();
      this.#turnsMs = nowMs + this.#windowMs;
    }
    this.#young.set(key, window);
    return window;
  }
}
