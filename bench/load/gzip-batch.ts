import { deflateRawSync } from "node:zlib";

import { type Batch, MARK_BYTES } from "./batch.ts";

const HEADER = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
const STORED_HEAD_BYTES = 5;
const TRAILER_BYTES = 8;
const DIGITS = new TextEncoder().encode("0123456789abcdef");

/**
 * Compresses a batch once. Everything up to its mark is stored as it is, so that the mark can be
 * overwritten in the compressed bytes; `seal` then corrects the checksum. Compressing each request
 * would cost the generator more than the server.
 */
export function gzipBatch({ bytes, markOffset }: Batch) {
  const markEnd = markOffset + MARK_BYTES;
  const stored = [0, markEnd & 0xff, markEnd >> 8, ~markEnd & 0xff, (~markEnd >> 8) & 0xff];
  const trailer = Buffer.alloc(TRAILER_BYTES);
  trailer.writeUInt32LE(bytes.length, 4);
  const body = Buffer.concat([
    Uint8Array.from([...HEADER, ...stored]),
    bytes.subarray(0, markEnd),
    deflateRawSync(bytes.subarray(markEnd)),
    trailer,
  ]);
  const changes = checksumChanges(bytes, markOffset);
  const checksum = Bun.hash.crc32(bytes);
  const mark = HEADER.length + STORED_HEAD_BYTES + markOffset;
  const seal = (buffer: Uint8Array, start: number) => {
    let crc = checksum;
    for (let at = 0; at < MARK_BYTES; at++)
      crc ^= changes[at * 256 + (buffer[start + mark + at] ?? 0)] ?? 0;
    const end = start + body.length - TRAILER_BYTES;
    for (let byte = 0; byte < 4; byte++) buffer[end + byte] = crc >>> (8 * byte);
  };
  seal(body, 0);
  return { body, markOffsets: [mark], seal };
}

/** Returns how each digit at each place of the mark changes the checksum: CRCs are linear. */
function checksumChanges(bytes: Uint8Array, markOffset: number): Uint32Array {
  const changes = new Uint32Array(MARK_BYTES * 256);
  const before = Bun.hash.crc32(bytes);
  const copy = bytes.slice();
  for (let at = 0; at < MARK_BYTES; at++) {
    const kept = copy[markOffset + at] ?? 0;
    for (const digit of DIGITS) {
      copy[markOffset + at] = digit;
      changes[at * 256 + digit] = Bun.hash.crc32(copy) ^ before;
    }
    copy[markOffset + at] = kept;
  }
  return changes;
}
