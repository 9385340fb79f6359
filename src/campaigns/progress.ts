export type OpenChunk = { until: number; left: number };

/** Progress of a run: the devices that are being sent to, and the id up to which all are settled. */
export class Progress {
  /** Chunks in walking order; `left` counts their devices without an outcome. */
  readonly #open: OpenChunk[] = [];
  /** Chunk by device id; undefined for devices that an earlier walk left out. */
  readonly #sending = new Map<number, OpenChunk | undefined>();
  #walked: number;
  #doneCursor: number;

  constructor(doneCursor: number) {
    this.#walked = doneCursor;
    this.#doneCursor = doneCursor;
  }

  /** Returns the id up to which all devices were walked; those found again had been left out. */
  get walked(): number {
    return this.#walked;
  }

  /** Returns the id up to which every target has its outcome recorded. */
  get doneCursor(): number {
    for (let first = this.#open[0]; first?.left === 0; first = this.#open[0]) {
      this.#doneCursor = first.until;
      this.#open.shift();
    }
    return this.#doneCursor;
  }

  /** Returns the ids of devices that were begun and are not settled. */
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

  /** Leaves devices out, for a later walk. */
  leave(devices: { id: number }[]): void {
    for (const { id } of devices) this.#sending.delete(id);
  }

  settle(id: number): void {
    const chunk = this.#sending.get(id);
    if (chunk !== undefined) chunk.left--;
    this.#sending.delete(id);
  }
}
