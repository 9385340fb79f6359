export type OpenChunk = { until: number; left: number };

/** How far a launch is: who is being sent to, and up to which id every target has its outcome recorded. */
export class Progress {
  /** In walking order, with how many of their devices have no outcome yet. */
  readonly #open: OpenChunk[] = [];
  /** undefined for those that an earlier walk left */
  readonly #sending = new Map<number, OpenChunk | undefined>();
  #walked: number;
  #doneCursor: number;

  constructor(doneCursor: number) {
    this.#walked = doneCursor;
    this.#doneCursor = doneCursor;
  }

  /** Up to here every device was looked at; what is found again had been left. */
  get walked(): number {
    return this.#walked;
  }

  get doneCursor(): number {
    for (let first = this.#open[0]; first?.left === 0; first = this.#open[0]) {
      this.#doneCursor = first.until;
      this.#open.shift();
    }
    return this.#doneCursor;
  }

  /** The ids that have been begun and are not settled. */
  sending(): Set<number> {
    return new Set(this.#sending.keys());
  }

  /** Opens a chunk of all targets up to `until`; the done cursor stays before it until each of them is settled. */
  open(until: number, targets: number): OpenChunk | undefined {
    if (until <= this.#walked) return undefined;
    this.#walked = until;
    const chunk = { until, left: targets };
    this.#open.push(chunk);
    return chunk;
  }

  begin(devices: { id: number }[], chunk: OpenChunk | undefined): void {
    for (const { id } of devices) this.#sending.set(id, chunk);
  }

  /** They are not sent to now. */
  leave(devices: { id: number }[]): void {
    for (const { id } of devices) this.#sending.delete(id);
  }

  settle(id: number): void {
    const chunk = this.#sending.get(id);
    if (chunk !== undefined) chunk.left--;
    this.#sending.delete(id);
  }
}
