/*
 * Record of a segment or an archive; numbers are little endian:
 *
 *   length u32, project u32, session u64, received-at u64 (ms), checksum u64, kind u8, flags u8, body
 *
 * The checksum is xxHash3, 64 bits, of the body.
 */
export const RECORD_HEADER_BYTES = 34;

/**
 * Kinds of records; the last three are in archives only. A kind's index is its number in the stored format: append only.
 */
export const KINDS = [
  "batch",
  "session",
  "chunk",
  "image",
  "project",
  "index",
  "frame",
  "content",
] as const;
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

/** Thrown if bytes are not a valid segment, or not a part of one. */
export class SegmentError extends Error {
  override readonly name = "SegmentError";
}

/** Writes the header of a record before its body, which begins at `offset`. */
export function writeHeader(
  view: DataView,
  { offset, length, projectId, sessionId, receivedAt, checksum, kind, flags }: SegmentEntry,
): void {
  const at = offset - RECORD_HEADER_BYTES;
  view.setUint32(at, length, true);
  view.setUint32(at + 4, projectId, true);
  view.setBigUint64(at + 8, sessionId, true);
  view.setBigUint64(at + 16, BigInt(receivedAt), true);
  view.setBigUint64(at + 24, checksum, true);
  view.setUint8(at + 32, KINDS.indexOf(kind));
  view.setUint8(at + 33, flags);
}

/** Reads the header that the bytes begin with. Throws SegmentError if it is of no known kind. */
export function readHeader(bytes: Uint8Array): RecordHead & { length: number } {
  if (bytes.length < RECORD_HEADER_BYTES) throw new SegmentError("the header of a record is cut");
  const view = viewOf(bytes);
  const kind = KINDS[view.getUint8(32)];
  if (kind === undefined) throw new SegmentError("a record of no known kind");
  return {
    length: view.getUint32(0, true),
    projectId: view.getUint32(4, true),
    sessionId: view.getBigUint64(8, true),
    receivedAt: Number(view.getBigUint64(16, true)),
    kind,
    flags: view.getUint8(33),
  };
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

/** Returns a view of the bytes, to read numbers at places in them. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
