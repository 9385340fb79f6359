/**
 * Token bucket that refills at `perSecond` up to `burst`. `take` may ask for more than there is:
 * the bucket is then empty, never in debt.
 */
export class TokenBucket {
  readonly #perMs: number;
  readonly #burst: number;
  readonly #now: () => number;
  #tokens: number;
  #filledMs: number;

  constructor(perSecond: number, burst: number, now: () => number = () => performance.now()) {
    this.#perMs = perSecond / 1000;
    this.#burst = burst;
    this.#now = now;
    this.#tokens = burst;
    this.#filledMs = now();
  }

  has(tokens: number): boolean {
    this.#fill();
    return this.#tokens >= tokens;
  }

  take(tokens: number): void {
    this.#fill();
    this.#tokens = Math.max(0, this.#tokens - tokens);
  }

  #fill(): void {
    const now = this.#now();
    this.#tokens = Math.min(this.#burst, this.#tokens + (now - this.#filledMs) * this.#perMs);
    this.#filledMs = now;
  }
}
