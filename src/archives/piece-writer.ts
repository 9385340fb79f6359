import { type RecordHead } from "../log/record.ts";
import { type ArchiveWriter } from "./archive-writer.ts";
import {
  type ArchivedBatch,
  type Frame,
  INDEX_BATCHES_MAX,
  INDEX_ROWS_MAX,
  type Index,
  LEVEL,
  type Origin,
  packIndex,
} from "./piece-index.ts";
import { type Piece, addBatch, emptyPiece } from "./piece.ts";

const FRAME_BYTES = 2 ** 20;

/**
 * Writes the piece of one session: first its rows, then its batches in the order of commits. The
 * methods yield the bytes to write; a frame is held in memory until it is full.
 */
export class PieceWriter {
  readonly #archive: ArchiveWriter;
  readonly #head: Pick<RecordHead, "projectId" | "sessionId">;
  readonly #indexes: Uint8Array[] = [];
  readonly #piece: Piece;
  #index: Index = emptyIndex(0);
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;

  constructor(
    archive: ArchiveWriter,
    head: Pick<RecordHead, "projectId" | "sessionId"> & { archiveId: string },
  ) {
    const { archiveId, projectId, sessionId } = head;
    this.#archive = archive;
    this.#head = { projectId, sessionId };
    this.#piece = emptyPiece({ archiveId, sessionId, start: archive.bytes });
  }

  /** Adds a row of kind `session` or `image`, before the first batch. */
  *addRow(head: RecordHead, body: Uint8Array, origin: Origin): Generator<Uint8Array> {
    if (this.#index.rows.length === INDEX_ROWS_MAX) this.#endIndex();
    yield this.#archive.add({ ...head, ...this.#head }, body);
    yield body;
    this.#index.rows.push(origin);
    this.#index.at = this.#here;
  }

  *addBatch(batch: ArchivedBatch, body: Uint8Array): Generator<Uint8Array> {
    const isFull = this.#index.batches.length === INDEX_BATCHES_MAX;
    if (isFull || this.#waitingBytes + body.length > FRAME_BYTES) yield* this.#endFrame();
    if (isFull) this.#endIndex();
    this.#index.batches.push(batch);
    this.#waiting.push(body);
    this.#waitingBytes += body.length;
    addBatch(this.#piece, batch);
  }

  *end(): Generator<Uint8Array, Piece> {
    yield* this.#endFrame();
    this.#endIndex();
    const indexStart = this.#archive.bytes;
    for (const index of this.#indexes) yield* this.#record("index", index);
    const { start } = this.#piece;
    return { ...this.#piece, indexStart, length: this.#archive.bytes - start };
  }

  get #here(): number {
    return this.#archive.bytes - this.#piece.start;
  }

  *#endFrame(): Generator<Uint8Array> {
    if (this.#waiting.length === 0) return;
    const content = Buffer.concat(this.#waiting, this.#waitingBytes);
    const body = Bun.zstdCompressSync(content, { level: LEVEL });
    const frame: Frame = {
      batches: this.#waiting.length,
      bytes: this.#waitingBytes,
      length: body.length,
    };
    this.#index.frames.push(frame);
    this.#waiting = [];
    this.#waitingBytes = 0;
    yield* this.#record("frame", body);
  }

  #endIndex(): void {
    this.#indexes.push(packIndex(this.#index));
    this.#index = emptyIndex(this.#here);
  }

  *#record(kind: "frame" | "index", body: Uint8Array): Generator<Uint8Array> {
    yield this.#archive.add({ ...this.#head, kind, flags: 0, receivedAt: 0 }, body);
    yield body;
  }
}

function emptyIndex(at: number): Index {
  return { at, rows: [], frames: [], batches: [] };
}
