/** Credit that refills at a steady rate up to a burst. It can be overdrawn down to nothing, never below. */
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
