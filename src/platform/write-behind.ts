/**
 * Schedules writes of what a buffer collects: some time after the first item, and one at a time, so
 * that a store that is slow gets larger writes instead of more. The buffer is its owner's, who also
 * decides what to keep after a failure.
 */
export class WriteBehind implements AsyncDisposable {
  readonly #afterMs: number;
  readonly #write: () => Promise<void>;
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> | undefined;
  /** Asks that came during a write. */
  #next: "soon" | "now" | undefined;
  #isClosed = false;

  /** `write` takes what is in the buffer and never rejects. */
  constructor(afterMs: number, write: () => Promise<void>) {
    this.#afterMs = afterMs;
    this.#write = write;
  }

  /** Writes after the time; the first ask counts. */
  soon(): void {
    if (this.#writing !== undefined) this.#next ??= "soon";
    else if (!this.#isClosed) this.#timer ??= setTimeout(() => this.now(), this.#afterMs);
  }

  /** Writes at once, or when the write under way has ended. */
  now(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#writing !== undefined) this.#next = "now";
    else if (!this.#isClosed) this.#writing = this.#write().finally(() => this.#ended());
  }

  /** Writes what is in the buffer now. */
  async flush(): Promise<void> {
    await this.#writing;
    if (this.#writing === undefined) this.now();
    await this.#writing;
  }

  /** Writes the rest, and nothing more: what its last write puts back is lost. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.flush();
    this.#isClosed = true;
    clearTimeout(this.#timer);
  }

  #ended(): void {
    const next = this.#next;
    this.#writing = this.#next = undefined;
    if (next !== undefined) this[next]();
  }
}
