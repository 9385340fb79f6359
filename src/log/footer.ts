import { pack, unpack } from "msgpackr";

import { KINDS, RECORD_HEADER_BYTES, type SegmentEntry, SegmentError, viewOf } from "./record.ts";

/*
 * End of a segment or an archive, and the magic at its beginning; numbers are little endian:
 *
 *   footer: MessagePack of [id, entries, sources?], each entry an array as packEntry writes it
 *   footer length u32, footer checksum u64 (xxHash3), magic "FLDGSEG1"
 */
export const MAGIC = new TextEncoder().encode("FLDGSEG1");
export const TRAILER_BYTES = 4 + 8 + MAGIC.length;
/** MessagePack's bound for one footer entry: twelve numbers of nine bytes and the array's head. */
export const FOOTER_ENTRY_BYTES_MAX = 112;
export const FOOTER_BYTES_MIN = 256;

/** Footer of a segment, or of an archive, which names the segments and archives it was made of. */
export type Footer = { id: string; entries: SegmentEntry[]; sources?: string[] };

/** Returns the footer and what follows it. */
export function packFooter({ id, entries, sources }: Footer): Uint8Array {
  const packed = entries.map(packEntry);
  const footer = pack(sources === undefined ? [id, packed] : [id, packed, sources]);
  const bytes = Buffer.allocUnsafe(footer.length + TRAILER_BYTES);
  bytes.set(footer);
  bytes.writeUInt32LE(footer.length, footer.length);
  bytes.writeBigUInt64LE(Bun.hash.xxHash3(footer), footer.length + 4);
  bytes.set(MAGIC, footer.length + 12);
  return bytes;
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
  const [id, entries, sources]: [string, PackedEntry[], string[]?] = unpack(footer);
  return { id, entries: entries.map(unpackEntry), ...(sources !== undefined && { sources }) };
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
