import { zstdDecompressSync } from "node:zlib";
import { pack, unpack } from "msgpackr";

import { SegmentError } from "../log/record.ts";

/*
 * Group: consecutive batches of one session in an archive, as one record `index` and the records
 * `frame` after it. The body of a frame is a zstd frame of inflated batches. The body of an index is a
 * zstd frame of MessagePack: [ids of segments, frames, batches], as packIndex writes them.
 */
const LEVEL = 3;
const FRAME_BYTES = 2 ** 20;
/** Bounds of a group, which is in memory whole; a single batch may be longer. */
const GROUP_BYTES = 16 * 2 ** 20;
const GROUP_BATCHES = 2048;
// Bound of an index when inflated: more than its batches can take.
const INDEX_BYTES_MAX = 2 ** 20;

/** Facts about an archived batch, whose body is stored inflated. */
export type ArchivedBatch = {
  /** Place at which it was first stored; places are in the order of commits. */
  segmentId: string;
  offset: number;
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
export type Index = { batches: ArchivedBatch[]; frames: Frame[] };
/** Bodies of a group's records, and the index as it was packed. */
export type Group = Index & { index: Uint8Array; bodies: Uint8Array[] };

/** Packs batches, which must be in the order of commits, into groups; holds one in memory. */
export async function* packGroups(
  batches:
    | AsyncIterable<{ batch: ArchivedBatch; body: Uint8Array }>
    | Iterable<{ batch: ArchivedBatch; body: Uint8Array }>,
): AsyncGenerator<Group> {
  let group = new OpenGroup();
  for await (const { batch, body } of batches) {
    if (!group.hasRoom(batch)) {
      yield group.close();
      group = new OpenGroup();
    }
    group.add(batch, body);
  }
  if (group.batches.length > 0) yield group.close();
}

class OpenGroup {
  readonly batches: ArchivedBatch[] = [];
  readonly #frames: Frame[] = [];
  readonly #bodies: Uint8Array[] = [];
  #bytes = 0;
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;

  hasRoom({ bytes }: ArchivedBatch): boolean {
    const { length } = this.batches;
    return length === 0 || (length < GROUP_BATCHES && this.#bytes + bytes <= GROUP_BYTES);
  }

  add(batch: ArchivedBatch, body: Uint8Array): void {
    if (this.#waitingBytes + body.length > FRAME_BYTES) this.#closeFrame();
    this.batches.push(batch);
    this.#waiting.push(body);
    this.#waitingBytes += body.length;
    this.#bytes += body.length;
  }

  close(): Group {
    this.#closeFrame();
    const index: Index = { batches: this.batches, frames: this.#frames };
    return { ...index, index: packIndex(index), bodies: this.#bodies };
  }

  #closeFrame(): void {
    if (this.#waiting.length === 0) return;
    const content = Buffer.concat(this.#waiting, this.#waitingBytes);
    const body = Bun.zstdCompressSync(content, { level: LEVEL });
    this.#frames.push({
      batches: this.#waiting.length,
      bytes: this.#waitingBytes,
      length: body.length,
    });
    this.#bodies.push(body);
    this.#waiting = [];
    this.#waitingBytes = 0;
  }
}

type PackedFrame = [number, number, number];
type PackedBatch = [
  number,
  number,
  number,
  number,
  number | null,
  number | null,
  number,
  number | bigint,
  number,
];

function packIndex({ batches, frames }: Index): Uint8Array {
  const segments = new Map<string, number>();
  const rows = batches.map((b): PackedBatch => {
    const segment = segments.get(b.segmentId) ?? segments.size;
    segments.set(b.segmentId, segment);
    const { offset, flags, receivedAt, firstAt, lastAt, bytes, hash, messages } = b;
    return [segment, offset, flags, receivedAt, firstAt, lastAt, bytes, hash, messages];
  });
  const packed = frames.map((f): PackedFrame => [f.batches, f.bytes, f.length]);
  return Bun.zstdCompressSync(pack([[...segments.keys()], packed, rows]), { level: LEVEL });
}

/** Reads the body of a record `index`. Throws SegmentError if it contradicts itself. */
export function unpackIndex(body: Uint8Array): Index {
  const [segments, packed, rows]: [string[], PackedFrame[], PackedBatch[]] = unpack(
    inflated(body, INDEX_BYTES_MAX),
  );
  const frames = packed.map(([batches, bytes, length]): Frame => ({ batches, bytes, length }));
  const batches = rows.map(
    ([segment, offset, flags, receivedAt, firstAt, lastAt, bytes, hash, messages]) => {
      const segmentId = segments[segment];
      if (segmentId === undefined) throw new SegmentError("an index names no segment");
      return {
        segmentId,
        offset,
        flags,
        receivedAt,
        firstAt,
        lastAt,
        bytes,
        hash: BigInt(hash),
        messages,
      };
    },
  );
  let nth = 0;
  for (const frame of frames) {
    const own = batches.slice(nth, (nth += frame.batches));
    if (own.reduce((sum, { bytes }) => sum + bytes, 0) !== frame.bytes)
      throw new SegmentError("an index contradicts its frames");
  }
  if (nth !== batches.length) throw new SegmentError("an index contradicts its frames");
  return { batches, frames };
}

/** Returns the bodies of a frame's batches. Throws SegmentError if it holds other bytes. */
export function unpackFrame(
  body: Uint8Array,
  frame: Frame,
  batches: ArchivedBatch[],
): Uint8Array[] {
  const content = inflated(body, frame.bytes);
  if (content.length !== frame.bytes)
    throw new SegmentError(`${content.length} bytes in a frame instead of ${frame.bytes}`);
  let at = 0;
  return batches.map(({ bytes }) => content.subarray(at, (at += bytes)));
}

function inflated(body: Uint8Array, bytesMax: number): Uint8Array {
  try {
    return zstdDecompressSync(body, { maxOutputLength: bytesMax });
  } catch (cause) {
    throw new SegmentError("a record of an archive does not inflate", { cause });
  }
}
