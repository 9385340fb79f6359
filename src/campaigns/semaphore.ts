/** Limits how many things happen at a time. Acquiring a free place costs no promise. */
export class Semaphore {
  readonly max: number;
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(max: number) {
    this.max = max;
    this.#free = max;
  }

  get used(): number {
    return this.max - this.#free;
  }

  /** Waits for a place. Returns undefined if one was free. */
  acquire(): Promise<void> | undefined {
    if (this.#free > 0) {
      this.#free--;
      return undefined;
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push(resolve);
    return promise;
  }

  /** Gives the place to the caller that has waited longest. */
  release(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free++;
    else next();
  }
}
