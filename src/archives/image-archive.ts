import { pack } from "msgpackr";

import { RECORD_HEADER_BYTES, type RecordHead, SegmentError } from "../log/record.ts";
import { type Place, type SegmentReader } from "../log/segment-reader.ts";
import { discarded } from "../platform/gc.ts";
import { Lost } from "../platform/objects/read-faults.ts";
import { partsOf } from "../platform/streams.ts";
import { type ArchiveName, archiveKey } from "./archive-key.ts";
import { ArchiveWriter } from "./archive-writer.ts";

/*
 * An archive of images has a record `content` for each content, with its row, and then its bytes in
 * records `chunk`. All chunks but the last have this size, so that a row needs only the place of the
 * first one, and a range is read without what precedes it.
 */
export const CHUNK_BYTES = 128 * 1024;
/** Size up to which an image is held in memory and archived with others. */
export const HELD_BYTES = 8 * 2 ** 20;

/** Body of a record `content`: a row of `image_contents` without places. */
export type ContentRecord = {
  project_id: number;
  name: string;
  /** SHA-256 in hex. */
  sha256: string;
  kind: "image" | "frames";
  content_type: string;
  bytes: number;
  crc32: number;
  uses: number;
  stored_at: string;
  network: number | null;
  network_session: string | null;
  shared: boolean;
};

/** Place of an image's bytes: chunks in segments, or if `archive` is set, a range of that. */
export type ImagePlace = {
  segments: string[];
  offsets: number[];
  lengths: number[];
  /** `offset` is where the header of the first chunk begins. */
  archive: (ArchiveName & { offset: number }) | null;
};

/** Content whose bytes are in segments. */
export type LandedContent = Omit<ImagePlace, "archive"> & { row: ContentRecord };
/** A content and the range of its chunks, headers included, in the archive. */
export type PlacedContent = { content: LandedContent; offset: number; length: number };
type Chunk = Place & {
  /** Place in the image. */
  at: number;
};

/** Yields the image's chunks that have bytes from `start` up to but without `end`. */
export function* chunksWithin(
  { bytes, archive, segments, offsets, lengths }: ImagePlace & { bytes: number },
  start: number,
  end: number,
): Generator<Chunk> {
  if (archive !== null) {
    yield* archivedChunks(archive, start, Math.min(end, bytes), bytes);
    return;
  }
  let at = 0;
  for (const [index, segmentId] of segments.entries()) {
    const length = lengths[index] ?? 0;
    if (at + length > start && at < end)
      yield { segmentId, offset: offsets[index] ?? 0, length, at };
    at += length;
  }
}

function* archivedChunks(
  archive: ArchiveName & { offset: number },
  start: number,
  end: number,
  bytes: number,
): Generator<Chunk> {
  const key = archiveKey(archive);
  for (let nth = Math.floor(start / CHUNK_BYTES); nth * CHUNK_BYTES < end; nth++) {
    const at = nth * CHUNK_BYTES;
    const offset = archive.offset + at + (nth + 1) * RECORD_HEADER_BYTES;
    yield { segmentId: archive.id, key, offset, length: Math.min(CHUNK_BYTES, bytes - at), at };
  }
}

/** Archive of images that is being written. */
export class ImageArchive {
  readonly placed: PlacedContent[] = [];
  /** Contents whose bytes are lost, or are not those of their hash. */
  readonly unreadable: { content: LandedContent; cause: Error }[] = [];
  readonly #reader: SegmentReader;
  readonly #writer: ArchiveWriter;
  readonly #sources = new Set<string>();

  constructor(id: string, reader: SegmentReader) {
    this.#reader = reader;
    this.#writer = new ArchiveWriter(id, this.#sources);
  }

  get bytes(): number {
    return this.#writer.bytes;
  }

  get records(): number {
    return this.#writer.records;
  }

  /**
   * Yields the bytes of an archive of these contents. Leaves out unreadable ones, or throws if they
   * are too long to be held.
   */
  async *write(contents: LandedContent[], signal: AbortSignal): AsyncGenerator<Uint8Array> {
    yield this.#writer.begin();
    const chunks = contents.map(chunksOf);
    const bodies = this.#reader.read(chunks.flat(), { signal });
    for (const [nth, content] of contents.entries()) {
      const pieces = verified(content, chunks[nth]?.length ?? 0, bodies);
      const isHeld = content.row.bytes <= HELD_BYTES;
      try {
        yield* this.#add(content, isHeld ? slicesOf(await held(pieces)) : rechunked(pieces));
      } catch (error) {
        if (!(error instanceof Lost || error instanceof SegmentError)) throw error;
        this.unreadable.push({ content, cause: error });
        if (!isHeld) throw error;
      }
      discarded(content.row.bytes);
    }
    yield this.#writer.end();
  }

  async *#add(
    content: LandedContent,
    chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  ): AsyncGenerator<Uint8Array> {
    const { row, segments } = content;
    yield* this.#record(row, "content", pack(row));
    const offset = this.#writer.bytes;
    for await (const chunk of chunks) yield* this.#record(row, "chunk", chunk);
    this.placed.push({ content, offset, length: this.#writer.bytes - offset });
    for (const id of segments) this.#sources.add(id);
  }

  *#record(row: ContentRecord, kind: RecordHead["kind"], body: Uint8Array): Generator<Uint8Array> {
    const { project_id: projectId, stored_at: storedAt } = row;
    const receivedAt = Date.parse(storedAt);
    yield this.#writer.add({ kind, flags: 0, projectId, sessionId: 0n, receivedAt }, body);
    yield body;
  }
}

function chunksOf({ row, ...place }: LandedContent): Chunk[] {
  return [...chunksWithin({ ...place, archive: null, bytes: row.bytes }, 0, row.bytes)];
}

/** Yields the content's bytes. Takes all of its chunks even if one is lost, and then throws. */
async function* verified(
  { row }: LandedContent,
  chunks: number,
  bodies: AsyncGenerator<{ body: Uint8Array | Lost }, void>,
): AsyncGenerator<Uint8Array> {
  const hasher = new Bun.CryptoHasher("sha256");
  let lost: Lost | undefined;
  for (let nth = 0; nth < chunks; nth++) {
    const { value } = await bodies.next();
    if (value === undefined) break;
    if (value.body instanceof Lost) lost ??= value.body;
    else if (lost === undefined) {
      hasher.update(value.body);
      yield value.body;
    }
  }
  if (lost !== undefined) throw lost;
  if (hasher.digest("hex") !== row.sha256)
    throw new SegmentError("the image's bytes are not those of its hash");
}

async function held(pieces: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  return Buffer.concat(await Array.fromAsync(pieces));
}

function* slicesOf(bytes: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) yield bytes.subarray(at, at + CHUNK_BYTES);
}

async function* rechunked(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  for await (const { buffer, bytes } of partsOf(pieces, () => new Uint8Array(CHUNK_BYTES)))
    yield buffer.subarray(0, bytes);
}
