import { uuidTimeMs } from "../platform/uuid-time.ts";
import {
  FOOTER_BYTES_MIN,
  FOOTER_ENTRY_BYTES_MAX,
  type Footer,
  MAGIC,
  TRAILER_BYTES,
  packFooter,
} from "./footer.ts";
import {
  type BatchFacts,
  FLAG,
  RECORD_HEADER_BYTES,
  type RecordHead,
  type SegmentEntry,
  writeHeader,
} from "./record.ts";

/*
 * A segment is one object with many records that describes itself: magic, records (record.ts), footer
 * (footer.ts). The footer is enough to index batches.
 */
const PAGE_BYTES = 4096;

/** Whole segment in memory; `bytes` is the content of the object. */
export type Segment = Footer & { bytes: Uint8Array };

/** Returns the object key of a segment, which includes the hour in its id, a UUIDv7. */
export function segmentKey(id: string): string {
  const hour = new Date(segmentTime(id)).toISOString().slice(0, 13).replaceAll(/[-T]/g, "/");
  return `segments/${hour}/${id}`;
}

/** Returns the id of the segment with this key, or undefined if it is not a segment's key. */
export function segmentIdOf(key: string): string | undefined {
  const id = /[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.exec(key)?.[0];
  return id !== undefined && key === segmentKey(id) ? id : undefined;
}

/** Returns when the segment got its id, in ms since the epoch. */
export function segmentTime(id: string): number {
  return uuidTimeMs(id);
}

/** Appends records to the given buffer, and seals it into the bytes of an object. */
export class SegmentWriter {
  readonly buffer: Uint8Array;
  readonly entries: SegmentEntry[] = [];
  readonly #view: DataView;
  #used = MAGIC.length;

  constructor(buffer: Uint8Array) {
    this.buffer = buffer;
    this.#view = new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
    buffer.set(MAGIC);
  }

  /**
   * Returns the size of a buffer for a segment of those records alone, in whole pages, so that files
   * can be written from it directly.
   */
  static bytesFor(bodyBytes: number, records = 1): number {
    const perRecord = RECORD_HEADER_BYTES + FOOTER_ENTRY_BYTES_MAX;
    const bytes = MAGIC.length + bodyBytes + records * perRecord + FOOTER_BYTES_MIN + TRAILER_BYTES;
    return Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES;
  }

  get bytes(): number {
    return this.#used;
  }

  fits(bodyBytes: number, records = 1): boolean {
    const footer = FOOTER_BYTES_MIN + (this.entries.length + records) * FOOTER_ENTRY_BYTES_MAX;
    return (
      this.#used + records * RECORD_HEADER_BYTES + bodyBytes + footer + TRAILER_BYTES <=
      this.buffer.length
    );
  }

  /** Appends a record. The caller must check with `fits` that there is room. */
  append(head: RecordHead, body: Uint8Array, facts?: BatchFacts): SegmentEntry {
    const offset = this.#used + RECORD_HEADER_BYTES;
    // The hash of a batch that is not compressed is known from its facts.
    const known = (head.flags & FLAG.gzip) === 0 ? facts?.hash : undefined;
    const checksum = known ?? Bun.hash.xxHash3(body);
    const entry: SegmentEntry = { ...head, offset, length: body.length, checksum };
    if (facts !== undefined) entry.facts = facts;
    writeHeader(this.#view, entry);
    this.buffer.set(body, offset);
    this.#used = offset + body.length;
    this.entries.push(entry);
    return entry;
  }

  /** Writes the footer, and returns the segment, whose bytes are a view of the buffer. */
  seal(id: string): Segment {
    const footer = packFooter({ id, entries: this.entries });
    this.buffer.set(footer, this.#used);
    const bytes = this.buffer.subarray(0, this.#used + footer.length);
    return { id, bytes, entries: this.entries };
  }
}
