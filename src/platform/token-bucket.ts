/**
 * Token bucket that refills at `perSecond` up to `burst`. `take` may ask for more than there is:
 * the bucket is then empty, or in debt by up to `debtMax`.
 */
export class TokenBucket {
  readonly #perMs: number;
  readonly #burst: number;
  readonly #debtMax: number;
  readonly #now: () => number;
  /** Time at which the bucket is full again, from which follows what it holds before. */
  #fullMs = Number.NEGATIVE_INFINITY;

  constructor(
    perSecond: number,
    burst: number,
    now: () => number = () => performance.now(),
    debtMax = 0,
  ) {
    this.#perMs = perSecond / 1000;
    this.#burst = burst;
    this.#debtMax = debtMax;
    this.#now = now;
  }

  has(tokens: number): boolean {
    return this.waitMs(tokens) <= 0;
  }

  /** Returns the time until the bucket has so many tokens. */
  waitMs(tokens: number): number {
    return Math.max(0, this.#fullMs - this.#now() - (this.#burst - tokens) / this.#perMs);
  }

  take(tokens: number): void {
    const nowMs = this.#now();
    const fullMs = Math.max(this.#fullMs, nowMs) + tokens / this.#perMs;
    this.#fullMs = Math.min(fullMs, nowMs + (this.#burst + this.#debtMax) / this.#perMs);
  }

  /** Takes the tokens if the bucket has them. Returns whether it did. */
  tryTake(tokens: number): boolean {
    const isThere = this.has(tokens);
    if (isThere) this.take(tokens);
    return isThere;
  }
}
