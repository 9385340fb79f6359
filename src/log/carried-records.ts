import { type RecordHead } from "./record.ts";
import { type SegmentWriter } from "./segment.ts";

const BYTES_MAX = 64 * 1024;
// Time until records on a quiet server are worth a PUT of their own.
const MS_MAX = 10_000;

/**
 * Queue of records that no request waits for: the next segment carries them, whatever it is written
 * for. They are lost if the process dies or that segment fails.
 */
export class CarriedRecords {
  readonly #records: { head: RecordHead; body: Uint8Array }[] = [];
  readonly #flush: () => void;
  #bytes = 0;
  #isTimed = false;

  /** Calls `flush` when records have waited for a segment too long. */
  constructor(flush: () => void) {
    this.#flush = flush;
  }

  get isEmpty(): boolean {
    return this.#records.length === 0;
  }

  /** True if there are enough records to be worth a PUT of their own. */
  get isFull(): boolean {
    return this.#bytes > BYTES_MAX;
  }

  add(head: RecordHead, body: Uint8Array): void {
    this.#records.push({ head, body });
    this.#bytes += body.length;
    if (this.#isTimed) return;
    this.#isTimed = true;
    setTimeout(() => {
      this.#isTimed = false;
      if (!this.isEmpty) this.#flush();
    }, MS_MAX).unref();
  }

  /** Appends as many records as fit. */
  appendTo(writer: SegmentWriter): void {
    for (let next = this.#records[0]; next !== undefined; next = this.#records[0]) {
      if (writer.fits(next.body.length)) writer.append(next.head, next.body);
      // Drops a record that does not even fit into an empty segment: it would wait forever.
      else if (writer.entries.length > 0) return;
      this.#records.shift();
      this.#bytes -= next.body.length;
    }
  }
}
