// Shorter than the time limit of a test, so that the failure names the missing item.
const WAIT_MS = 20_000;

/** Queue of items that a connection has received and a test has not taken yet. */
export class Inbox<T> {
  readonly #what: string;
  readonly #items: T[] = [];
  readonly #waiting: PromiseWithResolvers<T>[] = [];
  #closed: string | undefined;

  constructor(what: string) {
    this.#what = what;
  }

  get size(): number {
    return this.#items.length;
  }

  put(item: T): void {
    const first = this.#waiting.shift();
    if (first === undefined) this.#items.push(item);
    else first.resolve(item);
  }

  /** Marks the end: no item will follow. */
  close(why: string): void {
    this.#closed ??= why;
    for (const { reject } of this.#waiting.splice(0)) reject(this.#none());
  }

  /** Takes the next item; fails if none arrives within seconds. */
  async take(): Promise<T> {
    const [item] = this.#items.splice(0, 1);
    if (item !== undefined) return item;
    if (this.#closed !== undefined) throw this.#none();
    const next = Promise.withResolvers<T>();
    this.#waiting.push(next);
    const late = setTimeout(() => {
      this.#waiting.splice(this.#waiting.indexOf(next), 1);
      next.reject(new Error(`no ${this.#what} within ${WAIT_MS} ms`));
    }, WAIT_MS);
    try {
      return await next.promise;
    } finally {
      clearTimeout(late);
    }
  }

  #none(): Error {
    return new Error(`no ${this.#what} any more: ${this.#closed}`);
  }
}
