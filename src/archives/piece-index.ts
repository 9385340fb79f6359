import { zstdDecompressSync } from "node:zlib";
import { pack, unpack } from "msgpackr";

import { SegmentError } from "../log/record.ts";

/*
 * The piece of a session in an archive: consecutive records of it, in this order.
 *
 *   session, image: rows that are needed to rebuild the database, as in segments
 *   frame: zstd frame of the inflated bodies of consecutive batches, at most 1 MiB unless one is longer
 *   index: zstd frame of MessagePack [at, segments, rows, frames, batches] about some of the frames
 *
 * `at` is where the header of the index's first frame begins, counted from the piece's start.
 * Batches are in the order of commits.
 */
export const LEVEL = 3;
/** Batches of one index at most, so that a long session is read with little memory. */
export const INDEX_BATCHES_MAX = 2048;
export const INDEX_ROWS_MAX = 8192;
// More than an index can have when it is inflated.
const INDEX_BYTES_MAX = 2 ** 20;
// The smallest buffer that zlib takes.
const CHUNK_BYTES_MIN = 64;

/** Place at which a record was first stored, which identifies it: places are in the order of commits. */
export type Origin = { segmentId: string; offset: number };

/** Facts about an archived batch, whose body is stored inflated. */
export type ArchivedBatch = Origin & {
  flags: number;
  /** Times in ms since the epoch; null if the framing could not be read. */
  receivedAt: number;
  firstAt: number | null;
  lastAt: number | null;
  bytes: number;
  /** xxHash3 of the body. */
  hash: bigint;
  messages: number;
};
export type Frame = {
  batches: number;
  /** Length when inflated. */
  bytes: number;
  /** Length as stored, without the record's header. */
  length: number;
};
export type Index = { at: number; rows: Origin[]; frames: Frame[]; batches: ArchivedBatch[] };

type PackedOrigin = [number, number];
type PackedFrame = [number, number, number];
type PackedBatch = [
  ...PackedOrigin,
  number,
  number,
  number | null,
  number | null,
  number,
  number | bigint,
  number,
];
type PackedIndex = [number, string[], PackedOrigin[], PackedFrame[], PackedBatch[]];

export function packIndex({ at, rows, frames, batches }: Index): Uint8Array {
  const segments = new Map<string, number>();
  const origin = ({ segmentId, offset }: Origin): PackedOrigin => {
    const segment = segments.get(segmentId) ?? segments.size;
    segments.set(segmentId, segment);
    return [segment, offset];
  };
  const packedRows = rows.map(origin);
  const packedFrames = frames.map((f): PackedFrame => [f.batches, f.bytes, f.length]);
  const packedBatches = batches.map((batch): PackedBatch => {
    const { flags, receivedAt, firstAt, lastAt, bytes, hash, messages } = batch;
    return [...origin(batch), flags, receivedAt, firstAt, lastAt, bytes, hash, messages];
  });
  const packed: PackedIndex = [at, [...segments.keys()], packedRows, packedFrames, packedBatches];
  return Bun.zstdCompressSync(pack(packed), { level: LEVEL });
}

/** Reads the body of a record `index`. Throws SegmentError if it contradicts itself. */
export function unpackIndex(body: Uint8Array): Index {
  const [at, segments, rows, packedFrames, packedBatches]: PackedIndex = unpack(
    inflated(body, INDEX_BYTES_MAX),
  );
  const origin = ([segment, offset]: PackedOrigin): Origin => {
    const segmentId = segments[segment];
    if (segmentId === undefined) throw new SegmentError("an index names no segment");
    return { segmentId, offset };
  };
  const batches = packedBatches.map(
    ([segment, offset, flags, receivedAt, firstAt, lastAt, bytes, hash, messages]) => ({
      ...origin([segment, offset]),
      flags,
      receivedAt,
      firstAt,
      lastAt,
      bytes,
      hash: BigInt(hash),
      messages,
    }),
  );
  const frames = packedFrames.map(([count, bytes, length]) => ({ batches: count, bytes, length }));
  let nth = 0;
  for (const frame of frames) {
    const bytes = batches
      .slice(nth, nth + frame.batches)
      .reduce((sum, batch) => sum + batch.bytes, 0);
    nth += frame.batches;
    if (bytes !== frame.bytes) throw new SegmentError("an index contradicts its frames");
  }
  if (nth !== batches.length) throw new SegmentError("an index contradicts its frames");
  return { at, rows: rows.map(origin), frames, batches };
}

/** Returns the bodies of a frame's batches. Throws SegmentError if it holds other bytes. */
export function unpackFrame(
  body: Uint8Array,
  frame: Pick<Frame, "bytes">,
  batches: Pick<ArchivedBatch, "bytes">[],
): Uint8Array[] {
  const content = inflated(body, frame.bytes);
  if (content.length !== frame.bytes)
    throw new SegmentError(`${content.length} bytes in a frame instead of ${frame.bytes}`);
  let at = 0;
  return batches.map(({ bytes }) => content.subarray(at, (at += bytes)));
}

function inflated(body: Uint8Array, bytesMax: number): Uint8Array {
  try {
    // Room for all of it, and a byte more: zlib copies what it has to make room for.
    const chunkSize = Math.max(CHUNK_BYTES_MIN, bytesMax + 1);
    return zstdDecompressSync(body, { maxOutputLength: Math.max(1, bytesMax), chunkSize });
  } catch (cause) {
    throw new SegmentError("a record of an archive does not inflate", { cause });
  }
}
