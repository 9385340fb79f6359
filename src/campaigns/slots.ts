/** A bounded number of things at a time. Taking one that is free costs no promise: there are thousands a second. */
export class Slots {
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

  /** Undefined when it is taken at once. */
  take(): Promise<void> | undefined {
    if (this.#free > 0) {
      this.#free--;
      return undefined;
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push(resolve);
    return promise;
  }

  /** Passes it on to who has waited longest. */
  give(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free++;
    else next();
  }
}
