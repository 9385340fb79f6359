import { constants, deflateRawSync } from "node:zlib";

import { type Batch, MARK_BYTES } from "./batch.ts";

const HEADER = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
const STORED_HEAD_BYTES = 5;
const TRAILER_BYTES = 8;
const DIGITS = new TextEncoder().encode("0123456789abcdef");

/**
 * Compresses a batch once. Its marks and all between them are stored as they are, so that the marks
 * can be overwritten in the compressed bytes; `seal` then corrects the checksum. Compressing each
 * request would cost the generator more than the server.
 */
export function gzipBatch({ bytes, markOffsets }: Batch) {
  const [from, to] = [Math.min(...markOffsets), Math.max(...markOffsets) + MARK_BYTES];
  const length = to - from;
  const stored = [0, length & 0xff, length >> 8, ~length & 0xff, (~length >> 8) & 0xff];
  const before = deflateRawSync(bytes.subarray(0, from), { finishFlush: constants.Z_FULL_FLUSH });
  const trailer = Buffer.alloc(TRAILER_BYTES);
  trailer.writeUInt32LE(bytes.length, 4);
  const body = Buffer.concat([
    Uint8Array.from(HEADER),
    before,
    Uint8Array.from(stored),
    bytes.subarray(from, to),
    deflateRawSync(bytes.subarray(to)),
    trailer,
  ]);
  const changes = checksumChanges(bytes, markOffsets);
  const checksum = Bun.hash.crc32(bytes);
  const mark = HEADER.length + before.length + STORED_HEAD_BYTES;
  const seal = (buffer: Uint8Array, start: number) => {
    let crc = checksum;
    for (let at = 0; at < MARK_BYTES; at++)
      crc ^= changes[at * 256 + (buffer[start + mark + at] ?? 0)] ?? 0;
    const end = start + body.length - TRAILER_BYTES;
    for (let byte = 0; byte < 4; byte++) buffer[end + byte] = crc >>> (8 * byte);
  };
  seal(body, 0);
  return { body, markOffsets: markOffsets.map((offset) => mark + offset - from), seal };
}

/**
 * Returns how each digit at each place of the mark, which is the same everywhere, changes the
 * checksum: CRCs are linear.
 */
function checksumChanges(bytes: Uint8Array, markOffsets: number[]): Uint32Array {
  const changes = new Uint32Array(MARK_BYTES * 256);
  const before = Bun.hash.crc32(bytes);
  const copy = bytes.slice();
  for (let at = 0; at < MARK_BYTES; at++) {
    for (const digit of DIGITS) {
      for (const offset of markOffsets) copy[offset + at] = digit;
      changes[at * 256 + digit] = Bun.hash.crc32(copy) ^ before;
    }
    for (const offset of markOffsets) copy[offset + at] = bytes[offset + at] ?? 0;
  }
  return changes;
}
