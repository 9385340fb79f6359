import { SegmentReader, batchBody } from "../log/segment-reader.ts";
import { type Sql } from "../platform/database/database.ts";
import { type ObjectStore } from "../platform/objects/objects.ts";
import { Lost, type ReadFaults } from "../platform/objects/read-faults.ts";
import { archiveKey } from "./archive-key.ts";
import { type ArchivedBatch, type Origin } from "./piece-index.ts";
import { HELD_BYTES, PieceCache, PieceReader, type PlacedFrame, byOrigin } from "./piece-reader.ts";
import {
  Merge,
  PieceCursor,
  type PieceRow,
  type SessionPage,
  type StoredBatch,
  type Unlisted,
  selectAfter,
  selectCopy,
} from "./session-merge.ts";

const BEFORE_ALL = { segmentId: "00000000-0000-0000-0000-000000000000", offset: 0 };
const PAGE_BATCHES = 500;
// Bytes that are read at once of each of many pieces.
const AHEAD_BYTES_MIN = 2 ** 18;
// Hashes that are remembered. A longer session shows a batch twice if it was sent again after so
// many others.
const SEEN_MAX = 2 ** 18;

export type SessionRecordsDeps = {
  sql: Sql;
  objects: ObjectStore;
  faults?: ReadFaults | undefined;
};

type Landing = { length: number; frame?: undefined };
type Archived = { length?: undefined; frame: PlacedFrame; frameOffset: number };
/** Facts about a batch that are needed to read its body. */
export type Readable = Origin &
  Pick<ArchivedBatch, "flags" | "bytes" | "hash"> &
  (Landing | Archived);
/** Converts the stored body of a batch in a segment. */
type Decode = (body: Uint8Array, batch: Pick<Readable, "flags" | "bytes">) => Uint8Array;

export type ListOptions = {
  /** Returns only batches with malformed framing, or only the others. */
  quarantined?: boolean;
  /** Rows of batches that are held in memory. */
  pageBatches?: number;
  /** False if the bodies are not read, or much later. */
  readsBodies?: boolean;
};

/**
 * Reads a session's batches, which are in segments and in pieces of archives, and may move
 * meanwhile: each once, in the order of commits. A batch that was sent several times counts where it
 * was stored first.
 */
export class SessionRecords {
  readonly #deps: SessionRecordsDeps;
  readonly #sessionId: bigint;
  readonly #reader: SegmentReader;
  readonly #cache = new PieceCache();
  readonly #seen = new Set<bigint>();
  #isWhole = false;

  constructor(deps: SessionRecordsDeps, sessionId: bigint) {
    this.#deps = deps;
    this.#sessionId = sessionId;
    this.#reader = new SegmentReader(deps.objects, deps.faults);
  }

  /**
   * Lists the batches without reading their bodies; of those in archives it reads the indexes. Each
   * statement shows rows and pieces of one moment: if it shows a new piece, batches that were not
   * listed yet may be in there, and listing goes on with all pieces of that moment.
   */
  async *list(options: ListOptions = {}): AsyncGenerator<StoredBatch | Unlisted> {
    const { quarantined, pageBatches = PAGE_BATCHES, readsBodies = true } = options;
    this.#isWhole = readsBodies;
    const lost = new Set<string>();
    let position: Origin = BEFORE_ALL;
    const ask = async () =>
      await selectAfter(this.#deps.sql, this.#sessionId, position, {
        quarantined,
        limit: pageBatches,
      });
    for (let page: SessionPage | undefined = await ask(); page !== undefined;) {
      const cursors = page.pieces.map(
        (row, _nth, { length }) => new PieceCursor(row, this.#piece(row, length), quarantined),
      );
      const merge = new Merge(page.batches, cursors, pageBatches);
      page = undefined;
      while (page === undefined) {
        if (merge.isPageDone) {
          const next = await ask();
          if (!merge.add(next)) page = next;
          continue;
        }
        const batch = merge.take() ?? (await merge.next());
        if (batch === undefined) return;
        if ("lost" in batch) {
          // It may just have been merged.
          const next = await ask();
          if (!next.pieces.some((row) => archiveKey(row) === batch.lost.key)) page = next;
          else if (!lost.has(batch.lost.key)) {
            lost.add(batch.lost.key);
            this.#report(batch.lost, batch.batches);
            yield batch;
          }
        } else if (byOrigin(batch, position) > 0) {
          position = { segmentId: batch.segmentId, offset: batch.offset };
          if (this.#isNew(batch.hash)) yield batch;
        }
      }
    }
  }

  /**
   * Yields the bodies of listed batches in the given order, and Lost if no copy of one can be read.
   * Throws while the store is unavailable.
   */
  async *read<B extends Readable | Unlisted>(
    batches: AsyncIterable<B> | Iterable<B>,
    decode: Decode = batchBody,
  ): AsyncGenerator<{ batch: B; body: Uint8Array | Lost }> {
    const source =
      Symbol.asyncIterator in batches
        ? batches[Symbol.asyncIterator]()
        : batches[Symbol.iterator]();
    let next = await source.next();
    // Neighbours in segments are read together.
    async function* neighbours() {
      while (next.done !== true && isLanding(next.value)) {
        const { segmentId, offset, length, flags, bytes } = next.value;
        yield { segmentId, offset, length, flags, bytes, batch: next.value };
        next = await source.next();
      }
    }
    try {
      while (next.done !== true) {
        const batch: B = next.value;
        if (isLanding(batch)) {
          const bodies = this.#reader.read(neighbours(), { decode, isSilent: true });
          for await (const { place, body } of bodies)
            yield {
              batch: place.batch,
              body: body instanceof Lost ? await this.#copyOf(place.batch, body, decode) : body,
            };
          continue;
        }
        if ("lost" in batch) yield { batch, body: batch.lost };
        else {
          const body = await this.#body(batch, decode);
          yield {
            batch,
            body: body instanceof Lost ? await this.#copyOf(batch, body, decode) : body,
          };
        }
        next = await source.next();
      }
    } finally {
      await source.return?.();
    }
  }

  /**
   * Returns the body of another copy of a batch whose body is lost. The batch may also just have
   * moved.
   */
  async #copyOf(batch: Readable, lost: Lost, decode: Decode): Promise<Uint8Array | Lost> {
    const tried = new Set([placeOf(batch)]);
    let isStored = false;
    // Asked again after each new failure: it may have moved again.
    for (let isMore = true; isMore;) {
      isMore = isStored = false;
      for await (const copy of this.#copies(batch.hash)) {
        isStored = true;
        const place = copy instanceof Lost ? copy.key : placeOf(copy);
        if (tried.has(place)) continue;
        tried.add(place);
        isMore = true;
        const found = copy instanceof Lost ? copy : await this.#body(copy, decode);
        if (!(found instanceof Lost)) return found;
      }
    }
    // Otherwise it was erased.
    if (isStored) this.#report(lost);
    return lost;
  }

  /** Yields the copies that a batch has now, and Lost for an index that cannot be read. */
  async *#copies(hash: bigint): AsyncGenerator<StoredBatch | Lost> {
    const { pieces, batches } = await selectCopy(this.#deps.sql, this.#sessionId, hash);
    yield* batches;
    for (const row of pieces)
      for await (const list of this.#piece(row, pieces.length).lists())
        if (list instanceof Lost) yield list;
        else yield* list.filter((batch) => batch.hash === hash);
  }

  async #body(batch: Readable, decode: Decode): Promise<Uint8Array | Lost> {
    if (batch.frame !== undefined) return await batch.frame.piece.body(batch);
    for await (const { body } of this.#reader.read([batch], { decode, isSilent: true }))
      return body;
    throw new Error("no body was read");
  }

  #piece(row: PieceRow, pieces: number): PieceReader {
    const deps = { ...this.#deps, cache: this.#cache };
    const aheadBytes = Math.max(AHEAD_BYTES_MIN, Math.floor(HELD_BYTES / pieces));
    return new PieceReader(deps, row, row, { aheadBytes, isWhole: this.#isWhole });
  }

  #report(lost: Lost, batches = 1): void {
    this.#deps.faults?.lost(lost, { session: String(this.#sessionId) }, batches);
  }

  #isNew(hash: bigint): boolean {
    if (this.#seen.has(hash)) return false;
    this.#seen.add(hash);
    if (this.#seen.size <= SEEN_MAX) return true;
    for (const oldest of this.#seen) {
      this.#seen.delete(oldest);
      break;
    }
    return true;
  }
}

/** Names the place of a batch. */
function placeOf(batch: Readable): string {
  if (batch.frame === undefined) return `${batch.segmentId} ${batch.offset}`;
  return `${batch.frame.piece.key} ${batch.frame.start} ${batch.frameOffset}`;
}

function isLanding<B extends Readable | Unlisted>(batch: B): batch is B & Readable & Landing {
  return !("lost" in batch) && batch.frame === undefined;
}
