import { type CommitLog } from "../log/commit-log.ts";
import { type InflightBytes } from "../log/inflight-bytes.ts";
import { type PendingSegment } from "../log/open-segment.ts";
import { type Chunks, type SentImage } from "./contents.ts";

/** Largest size of a chunk, so that many slow uploads can share the open segment. */
export const CHUNK_BYTES_MAX = 128 * 1024;
// Smaller pieces are buffered up to this size, which is all the memory that a slow upload uses.
const CHUNK_BYTES_MIN = 32 * 1024;
// Bytes of one upload that may wait for the object store before its client has to wait, too: the
// larger number while half of the memory for bytes in flight is free.
const WINDOW_BYTES = { min: 8 * 2 ** 20, max: 24 * 2 ** 20 };
// Upper bounds of an image's row in MessagePack: the row with its name, and each of its chunks.
const ROW_BYTES_MAX = 1024;
const ROW_CHUNK_BYTES_MAX = 56;

export type Owner = { projectId: number; sessionId: bigint };
type Chunk = { segment: PendingSegment; offset: number; length: number };

/** Pauses an upload while too much of it waits for the object store. */
export class UploadWindow {
  readonly #commitLog: Pick<CommitLog, "hurry">;
  readonly #inflight: InflightBytes;
  #waiting: { segment: PendingSegment; bytes: number }[] = [];
  #bytes = 0;

  constructor(commitLog: Pick<CommitLog, "hurry">, inflight: InflightBytes) {
    this.#commitLog = commitLog;
    this.#inflight = inflight;
  }

  add(segment: PendingSegment, bytes: number): void {
    const last = this.#waiting.at(-1);
    if (last?.segment === segment) last.bytes += bytes;
    else this.#waiting.push({ segment, bytes });
    this.#bytes += bytes;
  }

  /**
   * Returns undefined if more may be read. Otherwise resolves as soon as it may, or rejects if a
   * part of the upload could not be stored.
   */
  room(): Promise<void> | undefined {
    return this.#bytes > this.#bytesMax() ? this.#drained() : undefined;
  }

  async #drained(): Promise<void> {
    while (this.#bytes > this.#bytesMax()) {
      if (this.#waiting.every(({ segment }) => segment.id === undefined)) this.#commitLog.hurry();
      const stored = await Promise.race(
        this.#waiting.map(async (one) => {
          await one.segment.committed;
          return one;
        }),
      );
      this.#waiting = this.#waiting.filter((one) => one !== stored);
      this.#bytes -= stored.bytes;
    }
  }

  #bytesMax(): number {
    const { bytes, limit } = this.#inflight;
    return bytes < limit / 2 ? WINDOW_BYTES.max : WINDOW_BYTES.min;
  }
}

/** Writes the bytes of one file into segments, in chunks. */
export class PartWriter {
  readonly chunks: Chunk[] = [];
  readonly #commitLog: CommitLog;
  readonly #owner: Owner;
  readonly #window: UploadWindow;
  #gathered: Uint8Array | undefined;
  #gatheredBytes = 0;

  constructor(commitLog: CommitLog, owner: Owner, window: UploadWindow) {
    this.#commitLog = commitLog;
    this.#owner = owner;
    this.#window = window;
  }

  write(data: Uint8Array): void {
    if (data.length < CHUNK_BYTES_MIN) {
      this.#gather(data);
      return;
    }
    this.#flush();
    this.#append(data);
  }

  end(): void {
    this.#flush();
    this.#gathered = undefined;
  }

  /** Discards bytes that are not in a segment yet. */
  drop(): void {
    this.#gathered = undefined;
    this.#gatheredBytes = 0;
  }

  #gather(data: Uint8Array): void {
    for (let from = 0; from < data.length;) {
      this.#gathered ??= new Uint8Array(CHUNK_BYTES_MIN);
      const piece = data.subarray(from, from + CHUNK_BYTES_MIN - this.#gatheredBytes);
      this.#gathered.set(piece, this.#gatheredBytes);
      this.#gatheredBytes += piece.length;
      from += piece.length;
      if (this.#gatheredBytes === CHUNK_BYTES_MIN) this.#flush();
    }
  }

  #flush(): void {
    if (this.#gathered !== undefined && this.#gatheredBytes > 0)
      this.#append(this.#gathered.subarray(0, this.#gatheredBytes));
    this.#gatheredBytes = 0;
  }

  #append(data: Uint8Array): void {
    for (let from = 0; from < data.length; from += CHUNK_BYTES_MAX) {
      const body = data.subarray(from, from + CHUNK_BYTES_MAX);
      const head = { kind: "chunk", flags: 0, ...this.#owner } as const;
      const { segment, entry } = this.#commitLog.append({ head, body });
      this.chunks.push({ segment, offset: entry.offset, length: entry.length });
      this.#window.add(segment, entry.length);
    }
  }
}

export type StoredPart = { writer: PartWriter; row: SentImage };

/** Returns an upper bound of the bytes that the rows of these files take. */
export function rowBytesMax(parts: StoredPart[]): number {
  return parts.reduce(
    (sum, { writer }) => sum + ROW_BYTES_MAX + writer.chunks.length * ROW_CHUNK_BYTES_MAX,
    0,
  );
}

/**
 * Records the rows of files whose chunks are appended: in the same open segment, or after the
 * chunks are durable. The caller has reserved room for them.
 */
export async function storeRows(
  commitLog: CommitLog,
  parts: StoredPart[],
  owner: Owner,
): Promise<void> {
  const segments = new Set(
    parts.flatMap(({ writer }) => writer.chunks.map(({ segment }) => segment)),
  );
  const rowBytes = rowBytesMax(parts);
  for (;;) {
    const closed = [...segments].filter(({ id }) => id !== undefined);
    await Promise.all(closed.map(({ committed }) => committed));
    const open = [...segments].filter((segment) => !closed.includes(segment));
    // The open segment may have closed while the others were awaited.
    if (open.some(({ id }) => id !== undefined)) continue;
    if (open.length === 0 || commitLog.fits(rowBytes, parts.length)) break;
    commitLog.close();
  }
  const rows = parts.map(({ writer, row }) =>
    commitLog.appendRow("image", { ...row, ...chunkColumns(writer) }, owner, true),
  );
  await Promise.all(rows.map(({ committed }) => committed));
}

/**
 * Adds records to the next segment that the session sent these stored images. The database has the
 * rows already; the records allow rebuilding it. One without chunks is only a use.
 */
export function carryRows(
  commitLog: CommitLog,
  images: SentImage[],
  chunks: Chunks[],
  owner: Owner,
): void {
  for (const [index, image] of images.entries())
    commitLog.carryRow("image", { ...image, ...chunks[index] }, owner);
}

function chunkColumns({ chunks }: PartWriter) {
  return {
    // null means the segment that the row itself is in.
    chunk_segments: chunks.map(({ segment }) => segment.id ?? null),
    chunk_offsets: chunks.map(({ offset }) => offset),
    chunk_lengths: chunks.map(({ length }) => length),
  };
}
