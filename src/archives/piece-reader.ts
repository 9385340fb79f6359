import { LRUCache } from "lru-cache";

import { RECORD_HEADER_BYTES, SegmentError, readHeader, recordBody } from "../log/record.ts";
import { discarded, release } from "../platform/gc.ts";
import { ObjectDamaged, type ObjectStore } from "../platform/objects/objects.ts";
import { Lost, type ReadFaults } from "../platform/objects/read-faults.ts";
import { type ArchiveName, archiveKey } from "./archive-key.ts";
import {
  type ArchivedBatch,
  type Frame,
  type Index,
  type Origin,
  unpackFrame,
  unpackIndex,
} from "./piece-index.ts";
import { type Piece } from "./piece.ts";

/** Bytes of pieces that are held while a session is read. */
export const HELD_BYTES = 8 * 2 ** 20;
const HELD_FRAMES_BYTES = 4 * 2 ** 20;
// Bytes of a longer piece that are read at once.
const WINDOW_BYTES = 2 * 2 ** 20;
const FRAME_BYTES_MAX = 2 ** 20;
// More than the largest batch that is accepted, which is a frame of its own.
const BATCH_BYTES_MAX = 2 ** 27;
// Length that zstd adds at most, and more.
const FRAME_SLACK_BYTES = 1024;
const INDEX_BYTES_MAX = 2 ** 21;

/** Frame of a piece, and where its record's header begins. */
export type PlacedFrame = Frame & { piece: PieceReader; start: number };
/** Batch of a piece; it begins at `frameOffset` of the inflated frame. */
export type PlacedBatch = ArchivedBatch & { frame: PlacedFrame; frameOffset: number };
type PlacedIndex = Index & { frames: PlacedFrame[] };

type Range = { start: number; end: number };
/** Bytes of a range, fewer than that if the object is damaged. */
type Window = Range & { bytes: Uint8Array };

/** Bytes of a session's pieces that are held in memory. */
export class PieceCache {
  readonly windows = new LRUCache<string, Window>({
    maxSize: HELD_BYTES,
    sizeCalculation: ({ bytes }) => Math.max(1, bytes.length),
    // Nobody reads it any more, unless several files are read at once: they read it again.
    dispose: ({ bytes }) => release(bytes),
  });
  readonly frames = new LRUCache<string, Uint8Array | Lost>({
    maxSize: HELD_FRAMES_BYTES,
    sizeCalculation: (content) => (content instanceof Lost ? 1 : Math.max(1, content.length)),
  });
}

export type PieceReaderDeps = {
  objects: ObjectStore;
  /** Turns failures of a store that is away into 503. */
  faults?: ReadFaults | undefined;
  cache?: PieceCache;
  signal?: AbortSignal | undefined;
};
export type PieceRange = Pick<Piece, "start" | "length" | "indexStart">;

/**
 * Reads and verifies the piece of a session in an archive, with few requests. Damage is never
 * thrown, also if an index contradicts itself: reading returns Lost. Throws while the store is
 * unavailable.
 */
export class PieceReader {
  readonly key: string;
  readonly #deps: PieceReaderDeps;
  readonly #cache: PieceCache;
  readonly #records: Range;
  readonly #indexes: Range;
  readonly #aheadBytes: number;
  readonly #isWhole: boolean;

  /**
   * Reads up to `aheadBytes` at once: everything if the piece is not longer and `isWhole` is set,
   * which saves a request if the bodies are read, too.
   */
  constructor(
    deps: PieceReaderDeps,
    archive: ArchiveName,
    { start, length, indexStart }: PieceRange,
    { aheadBytes = HELD_BYTES, isWhole = true }: { aheadBytes?: number; isWhole?: boolean } = {},
  ) {
    this.key = archiveKey(archive);
    this.#deps = deps;
    this.#cache = deps.cache ?? new PieceCache();
    this.#records = { start, end: indexStart };
    this.#indexes = { start: indexStart, end: start + length };
    this.#aheadBytes = aheadBytes;
    this.#isWhole = isWhole && length <= aheadBytes;
  }

  /** Yields the batches of each index in the order of commits, and Lost if one cannot be read. */
  async *lists(): AsyncGenerator<PlacedBatch[] | Lost> {
    for await (const index of this.indexes())
      yield index instanceof Lost ? index : [...batchesOf(index)];
  }

  async *indexes(): AsyncGenerator<PlacedIndex | Lost> {
    let last: Origin | undefined;
    for (let { start: at, end } = this.#indexes; at < end;) {
      const bodyAt = at + RECORD_HEADER_BYTES;
      const length = await this.#verified(at, bodyAt, (header) =>
        indexLength(header, end - bodyAt),
      );
      if (length instanceof Lost) {
        // The place of the next index is not known.
        yield length;
        return;
      }
      const after = last;
      const index = await this.#verified(at, bodyAt + length, (record) =>
        this.#placed(unpackIndex(recordBody(record)), after),
      );
      yield index;
      if (!(index instanceof Lost)) last = index.batches.at(-1) ?? last;
      at = bodyAt + length;
    }
  }

  /** Returns the body of a batch of this piece. */
  async body({ frame, frameOffset, bytes, hash }: BodyPlace): Promise<Uint8Array | Lost> {
    const content = await this.#inflated(frame);
    if (content instanceof Lost) return content;
    const body = content.subarray(frameOffset, frameOffset + bytes);
    if (Bun.hash.xxHash3(body) === hash) return body;
    return new Lost("damaged", this.key, new SegmentError("a batch differs from its index"));
  }

  async #inflated(frame: PlacedFrame): Promise<Uint8Array | Lost> {
    const name = `${this.key} ${frame.start}`;
    const known = this.#cache.frames.get(name);
    if (known !== undefined) return known;
    const end = frame.start + RECORD_HEADER_BYTES + frame.length;
    const content = await this.#verified(frame.start, end, (record) => {
      const [all] = unpackFrame(recordBody(record), frame, [frame]);
      return all ?? new Uint8Array(0);
    });
    this.#cache.frames.set(name, content);
    discarded(frame.length + frame.bytes);
    return content;
  }

  /**
   * Reads bytes and converts them; reads them again if that fails, because they may have been
   * damaged on their way.
   */
  async #verified<T>(
    start: number,
    end: number,
    convert: (bytes: Uint8Array) => T,
  ): Promise<T | Lost> {
    for (let isAgain = false; ; isAgain = true) {
      const bytes = await this.#bytes(start, end, isAgain);
      if (bytes instanceof Lost) return bytes;
      try {
        return convert(bytes);
      } catch (error) {
        if (isAgain) return new Lost("damaged", this.key, error);
      }
    }
  }

  /** Returns the bytes of a range, fewer if the object is damaged. */
  async #bytes(start: number, end: number, isAgain: boolean): Promise<Uint8Array | Lost> {
    const part = start < this.#records.end ? this.#records : this.#indexes;
    const name = `${this.key} ${this.#isWhole ? 0 : part.start}`;
    if (isAgain) return await this.#fetch({ start, end });
    let window = this.#cache.windows.get(name);
    if (window === undefined || !has(window, start, end)) {
      const range = this.#around(start, end, part);
      const bytes = await this.#fetch(range);
      if (bytes instanceof Lost) return bytes;
      window = { ...range, bytes };
      this.#cache.windows.set(name, window);
    }
    return window.bytes.subarray(start - window.start, end - window.start);
  }

  #around(start: number, end: number, part: Range): Range {
    if (this.#isWhole) return { start: this.#records.start, end: this.#indexes.end };
    if (part.end - part.start <= this.#aheadBytes) return part;
    const bytes = Math.min(WINDOW_BYTES, this.#aheadBytes);
    return { start, end: Math.min(part.end, Math.max(end, start + bytes)) };
  }

  async #fetch({ start, end }: Range): Promise<Uint8Array | Lost> {
    const { objects, faults, signal } = this.#deps;
    try {
      return await objects.read(this.key, start, end, signal);
    } catch (error) {
      if (error instanceof ObjectDamaged) return error.bytes;
      const lost = Lost.from(error, this.key);
      if (lost !== undefined) return lost;
      throw faults?.away(error, this.key) ?? error;
    }
  }

  /** Adds the places of the frames. Throws SegmentError if an index is not true to its piece. */
  #placed(index: Index, after: Origin | undefined): PlacedIndex {
    let start = this.#records.start + index.at;
    const frames = index.frames.map((frame) => {
      const placed = { ...frame, piece: this, start };
      start += RECORD_HEADER_BYTES + frame.length;
      const bytesMax = frame.batches === 1 ? BATCH_BYTES_MAX : FRAME_BYTES_MAX;
      const isTrue =
        areCounts(index.at, frame.batches, frame.bytes, frame.length) &&
        frame.bytes <= bytesMax &&
        frame.length <= 2 * frame.bytes + FRAME_SLACK_BYTES &&
        start <= this.#records.end;
      if (!isTrue) throw new SegmentError("an index places a frame where none can be");
      return placed;
    });
    let last = after;
    for (const batch of index.batches) {
      const isTrue =
        areCounts(batch.offset, batch.bytes, batch.flags, batch.messages, batch.receivedAt) &&
        typeof batch.segmentId === "string" &&
        isTime(batch.firstAt) &&
        isTime(batch.lastAt) &&
        (last === undefined || byOrigin(last, batch) < 0);
      if (!isTrue) throw new SegmentError("an index has a batch that cannot be");
      last = batch;
    }
    return { ...index, frames };
  }
}

export type BodyPlace = Pick<PlacedBatch, "frame" | "frameOffset" | "bytes" | "hash">;

/** Yields the indexes of a piece. Throws Lost. */
export async function* readIndexes(
  objects: ObjectStore,
  archive: ArchiveName,
  piece: PieceRange,
  signal?: AbortSignal,
): AsyncGenerator<Index> {
  const reader = new PieceReader({ objects, signal }, archive, piece, { isWhole: false });
  for await (const index of reader.indexes())
    if (index instanceof Lost) throw index;
    else yield index;
}

/** Yields the batches of a piece with their bodies. Throws Lost if an index cannot be read. */
export async function* readPiece(
  objects: ObjectStore,
  archive: ArchiveName,
  piece: PieceRange,
  signal?: AbortSignal,
): AsyncGenerator<{ batch: ArchivedBatch; body: Uint8Array | Lost }> {
  const reader = new PieceReader({ objects, signal }, archive, piece);
  for await (const list of reader.lists()) {
    if (list instanceof Lost) throw list;
    for (const batch of list) yield { batch, body: await reader.body(batch) };
  }
}

/** Compares the places at which records were first stored, which are in the order of commits. */
export function byOrigin(a: Origin, b: Origin): number {
  if (a.segmentId !== b.segmentId) return a.segmentId < b.segmentId ? -1 : 1;
  return a.offset - b.offset;
}

function* batchesOf({ frames, batches }: PlacedIndex): Generator<PlacedBatch> {
  let nth = 0;
  for (const frame of frames) {
    let frameOffset = 0;
    for (const batch of batches.slice(nth, (nth += frame.batches))) {
      yield { ...batch, hash: BigInt.asUintN(64, batch.hash), frame, frameOffset };
      frameOffset += batch.bytes;
    }
  }
}

/** Returns the length of the index after that header. Throws SegmentError if there is none. */
function indexLength(header: Uint8Array, lengthMax: number): number {
  const { kind, length } = readHeader(header);
  if (kind !== "index" || length > Math.min(lengthMax, INDEX_BYTES_MAX))
    throw new SegmentError("there is no index where one should be");
  return length;
}

function has(range: Range, start: number, end: number): boolean {
  return start >= range.start && end <= range.end;
}

function areCounts(...values: number[]): boolean {
  return values.every((value) => Number.isSafeInteger(value) && value >= 0);
}

function isTime(value: number | null): boolean {
  return value === null || Number.isFinite(value);
}
