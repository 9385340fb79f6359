import { type RecordHead, type SegmentWriter } from "./segment.ts";

const BYTES_MAX = 64 * 1024;

/** Records that nobody waits for: the next segment takes them along, whoever it is written for. They are lost with the process, or with that segment. */
export class CarriedRecords {
  readonly #records: { head: RecordHead; body: Uint8Array }[] = [];
  #bytes = 0;

  get isEmpty(): boolean {
    return this.#records.length === 0;
  }

  /** Whether there are so many that a PUT is nothing to each. */
  get isFull(): boolean {
    return this.#bytes > BYTES_MAX;
  }

  add(head: RecordHead, body: Uint8Array): void {
    this.#records.push({ head, body });
    this.#bytes += body.length;
  }

  /** Appends as many as fit. */
  appendTo(writer: SegmentWriter): void {
    for (let next = this.#records[0]; next !== undefined; next = this.#records[0]) {
      if (writer.fits(next.body.length)) writer.append(next.head, next.body);
      // What does not fit into an empty segment would wait for ever.
      else if (writer.entries.length > 0) return;
      this.#records.shift();
      this.#bytes -= next.body.length;
    }
  }
}
