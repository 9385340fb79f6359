import { MAGIC, packFooter } from "../log/footer.ts";
import {
  RECORD_HEADER_BYTES,
  type RecordHead,
  type SegmentEntry,
  writeHeader,
} from "../log/record.ts";

/**
 * Writes the bytes of an archive piece by piece. An archive has the container of a segment, and
 * names in its footer what it was made of.
 */
export class ArchiveWriter {
  readonly #id: string;
  readonly #sources: Iterable<string>;
  readonly #entries: SegmentEntry[] = [];
  #bytes = MAGIC.length;

  /**
   * `sources`: ids of the segments and archives that its records come from, which are known at the
   * end.
   */
  constructor(id: string, sources: Iterable<string>) {
    this.#id = id;
    this.#sources = sources;
  }

  /** Number of bytes so far: where the header of the next record begins. */
  get bytes(): number {
    return this.#bytes;
  }

  get records(): number {
    return this.#entries.length;
  }

  /** Returns the first bytes of the archive. */
  begin(): Uint8Array {
    return MAGIC;
  }

  /** Returns the header of a record, which its body must follow. */
  add(head: RecordHead, body: Uint8Array, checksum = Bun.hash.xxHash3(body)): Uint8Array {
    const offset = this.#bytes + RECORD_HEADER_BYTES;
    const entry: SegmentEntry = { ...head, offset, length: body.length, checksum };
    this.#entries.push(entry);
    this.#bytes = offset + body.length;
    const header = new DataView(new ArrayBuffer(RECORD_HEADER_BYTES));
    writeHeader(header, { ...entry, offset: RECORD_HEADER_BYTES });
    return new Uint8Array(header.buffer);
  }

  /** Returns the last bytes of the archive. */
  end(): Uint8Array {
    const sources = [...this.#sources];
    const footer = packFooter({ id: this.#id, entries: this.#entries, sources });
    this.#bytes += footer.length;
    return footer;
  }
}
