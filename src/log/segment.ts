import { pack, unpack } from "msgpackr";

import { uuidTimeMs } from "../platform/uuid-time.ts";

/*
 * Format of a segment: one object with many records that describes itself; numbers are little endian.
 *
 *   magic "FLDGSEG1"
 *   records: length u32, project u32, session u64, received-at u64 (ms), checksum u64, kind u8, flags u8, body
 *   footer: MessagePack of [id, entries], each entry an array as packEntry writes it
 *   footer length u32, footer checksum u64, magic "FLDGSEG1"
 *
 * Checksums are xxHash3, 64 bits; a record's covers its body. The footer is enough to index batches.
 */
const MAGIC = new TextEncoder().encode("FLDGSEG1");
export const RECORD_HEADER_BYTES = 34;
const TRAILER_BYTES = 4 + 8 + MAGIC.length;
// MessagePack's bound for one footer entry: twelve numbers of nine bytes and the array's head.
const FOOTER_ENTRY_BYTES_MAX = 112;
const FOOTER_BYTES_MIN = 256;
const PAGE_BYTES = 4096;

/** Kinds of records. A kind's index is its number in the stored format: append only. */
const KINDS = ["batch", "session", "chunk", "image", "project"] as const;
export type Kind = (typeof KINDS)[number];

/**
 * Flags of a record, the lower four bits; the upper four are the kind of a batch (batch-kind.ts).
 * `indexed`: its row was in the database before the record was written; it is there for rebuilding
 * the database.
 */
export const FLAG = { gzip: 1, late: 2, quarantined: 4, indexed: 8 } as const;

/** Header of a record; a project or session of 0 is unknown. */
export type RecordHead = {
  kind: Kind;
  flags: number;
  projectId: number;
  sessionId: bigint;
  /** Time in ms since the epoch. */
  receivedAt: number;
};

/** Facts about a batch for the index. */
export type BatchFacts = {
  /** Number of bytes when inflated. */
  bytes: number;
  /** xxHash3 of the inflated bytes. */
  hash: bigint;
  messages: number;
  /** Times in ms since the epoch; null if the framing could not be read. */
  firstAt: number | null;
  lastAt: number | null;
};

/** Record that is not in a segment yet. */
export type NewRecord = {
  head: Omit<RecordHead, "receivedAt">;
  body: Uint8Array;
  facts?: BatchFacts | undefined;
};

export type SegmentEntry = RecordHead & {
  offset: number;
  length: number;
  checksum: bigint;
  facts?: BatchFacts;
};

/** Footer of a segment. */
export type Footer = { id: string; entries: SegmentEntry[] };
/** Whole segment in memory; `bytes` is the content of the object. */
export type Segment = Footer & { bytes: Uint8Array };

/** Thrown if bytes are not a valid segment, or not a part of one. */
export class SegmentError extends Error {
  override readonly name = "SegmentError";
}

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
    const view = this.#view;
    const at = this.#used;
    const offset = at + RECORD_HEADER_BYTES;
    // The hash of a batch that is not compressed is known from its facts.
    const known = (head.flags & FLAG.gzip) === 0 ? facts?.hash : undefined;
    const checksum = known ?? Bun.hash.xxHash3(body);
    view.setUint32(at, body.length, true);
    view.setUint32(at + 4, head.projectId, true);
    view.setBigUint64(at + 8, head.sessionId, true);
    view.setBigUint64(at + 16, BigInt(head.receivedAt), true);
    view.setBigUint64(at + 24, checksum, true);
    view.setUint8(at + 32, KINDS.indexOf(head.kind));
    view.setUint8(at + 33, head.flags);
    this.buffer.set(body, offset);
    this.#used = offset + body.length;
    const entry: SegmentEntry = { ...head, offset, length: body.length, checksum };
    if (facts !== undefined) entry.facts = facts;
    this.entries.push(entry);
    return entry;
  }

  /** Writes the footer, and returns the segment, whose bytes are a view of the buffer. */
  seal(id: string): Segment {
    const footer = pack([id, this.entries.map(packEntry)]);
    const end = this.#used + footer.length;
    this.buffer.set(footer, this.#used);
    this.#view.setUint32(end, footer.length, true);
    this.#view.setBigUint64(end + 4, Bun.hash.xxHash3(footer), true);
    this.buffer.set(MAGIC, end + 12);
    return { id, bytes: this.buffer.subarray(0, end + TRAILER_BYTES), entries: this.entries };
  }
}

/** Returns how many of a segment's last bytes `readFooter` needs. Throws SegmentError. */
export function footerBytes(tail: Uint8Array): number {
  const trailer = tail.length - TRAILER_BYTES;
  if (trailer < 0 || !hasMagic(tail, trailer + 12))
    throw new SegmentError("not a segment: the magic is missing");
  return viewOf(tail).getUint32(trailer, true) + TRAILER_BYTES;
}

/** Reads the footer from the last bytes of a segment. Throws SegmentError if it is not whole. */
export function readFooter(tail: Uint8Array): Footer {
  const trailer = tail.length - TRAILER_BYTES;
  const start = tail.length - footerBytes(tail);
  if (start < 0) throw new SegmentError("the footer is longer than the segment");
  const footer = tail.subarray(start, trailer);
  if (Bun.hash.xxHash3(footer) !== viewOf(tail).getBigUint64(trailer + 4, true))
    throw new SegmentError("the footer's checksum is wrong");
  const [id, entries]: [string, PackedEntry[]] = unpack(footer);
  return { id, entries: entries.map(unpackEntry) };
}

/**
 * Returns the body of a record that was read with its header. Throws SegmentError if it differs
 * from what was written.
 */
export function recordBody(record: Uint8Array): Uint8Array {
  const view = viewOf(record);
  const body = record.subarray(RECORD_HEADER_BYTES);
  if (
    record.length < RECORD_HEADER_BYTES ||
    view.getUint32(0, true) !== body.length ||
    view.getBigUint64(24, true) !== Bun.hash.xxHash3(body)
  )
    throw new SegmentError("a record differs from what was written");
  return body;
}

/** Throws SegmentError if the object does not begin like a segment. */
export function checkMagic(start: Uint8Array): void {
  if (!hasMagic(start, 0)) throw new SegmentError("not a segment: the magic is missing");
}

/** Throws SegmentError if the records do not fill the object up to its footer. */
export function checkLength({ entries }: Footer, bytes: number, footer: number): void {
  let end = MAGIC.length;
  let isFilled = true;
  for (const { offset, length } of entries) {
    isFilled &&= offset === end + RECORD_HEADER_BYTES;
    end = offset + length;
  }
  if (!isFilled || end + footer !== bytes)
    throw new SegmentError("the records do not fill the segment");
}

/**
 * Compares a record with its footer entry. "readable": the record's header is wrong, but its body
 * is intact.
 */
export function compareRecord(
  record: Uint8Array,
  entry: SegmentEntry,
): "whole" | "readable" | "damaged" {
  const view = viewOf(record);
  if (
    record.length !== RECORD_HEADER_BYTES + entry.length ||
    view.getUint32(0, true) !== entry.length ||
    view.getBigUint64(24, true) !== entry.checksum ||
    Bun.hash.xxHash3(record.subarray(RECORD_HEADER_BYTES)) !== entry.checksum
  )
    return "damaged";
  const isSame =
    view.getUint32(4, true) === entry.projectId &&
    view.getBigUint64(8, true) === entry.sessionId &&
    view.getBigUint64(16, true) === BigInt(entry.receivedAt) &&
    view.getUint8(32) === KINDS.indexOf(entry.kind) &&
    view.getUint8(33) === entry.flags;
  return isSame ? "whole" : "readable";
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function hasMagic(bytes: Uint8Array, at: number): boolean {
  return MAGIC.every((byte, index) => bytes[at + index] === byte);
}

type PackedHead = [
  number,
  number,
  number,
  number | bigint,
  number,
  number,
  number,
  number | bigint,
];
type PackedFacts = [number, number | bigint, number, number | null, number | null];
type PackedEntry = PackedHead | [...PackedHead, ...PackedFacts];

function packEntry(e: SegmentEntry): PackedEntry {
  const head: PackedHead = [
    KINDS.indexOf(e.kind),
    e.flags,
    e.projectId,
    e.sessionId,
    e.receivedAt,
    e.offset,
    e.length,
    e.checksum,
  ];
  if (e.facts === undefined) return head;
  const { bytes, hash, messages, firstAt, lastAt } = e.facts;
  return [...head, bytes, hash, messages, firstAt, lastAt];
}

function unpackEntry(packed: PackedEntry): SegmentEntry {
  const [number, flags, projectId, sessionId, receivedAt, offset, length, checksum] = packed;
  const kind = KINDS[number];
  if (kind === undefined) throw new SegmentError(`no such record kind: ${number}`);
  const entry = {
    kind,
    flags,
    projectId,
    sessionId: BigInt(sessionId),
    receivedAt,
    offset,
    length,
    checksum: BigInt(checksum),
  };
  if (packed.length === 8) return entry;
  const [, , , , , , , , bytes, hash, messages, firstAt, lastAt] = packed;
  return { ...entry, facts: { bytes, hash: BigInt(hash), messages, firstAt, lastAt } };
}
