/** Bounded FIFO queue without allocation per item. */
export class Ring<T> {
  readonly #items: (T | undefined)[];
  #head = 0;
  #size = 0;

  constructor(capacity: number) {
    this.#items = Array.from<T | undefined>({ length: capacity });
  }

  /** Returns false if the queue is full. */
  push(item: T): boolean {
    if (this.#size === this.#items.length) return false;
    this.#items[(this.#head + this.#size) % this.#items.length] = item;
    this.#size++;
    return true;
  }

  shift(): T | undefined {
    if (this.#size === 0) return undefined;
    const item = this.#items[this.#head];
    this.#items[this.#head] = undefined;
    this.#head = (this.#head + 1) % this.#items.length;
    this.#size--;
    return item;
  }

  /** Empties the queue; returns how many items were in it. */
  clear(): number {
    const size = this.#size;
    this.#items.fill(undefined);
    this.#head = 0;
    this.#size = 0;
    return size;
  }
}
