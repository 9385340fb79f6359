import type postgres from "postgres";

import { FLAG, SegmentError } from "../log/record.ts";
import { type Sql } from "../platform/database/database.ts";
import { Lost } from "../platform/objects/read-faults.ts";
import { type ArchiveName } from "./archive-key.ts";
import { type ArchivedBatch, type Origin } from "./piece-index.ts";
import { type PieceRange, type PieceReader, type PlacedBatch, byOrigin } from "./piece-reader.ts";

/** Batch in a segment, as it was sent. */
export type LandingBatch = ArchivedBatch & { length: number; frame?: undefined };
/** Row of a piece that has batches. */
export type PieceRow = ArchiveName &
  PieceRange & {
    batches: number;
    quarantined: number;
    /** Origin of the first batch. */
    segmentId: string;
    offset: number;
    /** Times in ms since the epoch. */
    firstReceived: number;
    lastReceived: number;
  };
export type StoredBatch = LandingBatch | PlacedBatch;
/** Batches that are lost with the index that lists them. Times are those of receipt, in ms. */
export type Unlisted = { lost: Lost; batches: number; from: number; to: number };
/** Rows of a session at one moment: all of its pieces, and some of its batches in segments. */
export type SessionPage = { pieces: PieceRow[]; batches: LandingBatch[] };

type PiecesRow = { pieces: PieceRow[] };
type BatchRow = Omit<LandingBatch, "receivedAt"> & { receivedAt: Date; pieces: null };

/** Returns the batches after that place, in the order of commits. */
export async function selectAfter(
  sql: Sql,
  sessionId: bigint,
  { segmentId, offset }: Origin,
  { quarantined, limit }: { quarantined: boolean | undefined; limit: number },
): Promise<SessionPage> {
  const kind =
    quarantined === undefined
      ? sql``
      : sql`and (flags & ${FLAG.quarantined} <> 0) = ${quarantined}`;
  const some = sql`(segment_id, "offset") > (${segmentId}, ${offset}) ${kind}
    order by segment_id, "offset" limit ${limit}`;
  return await select(sql, sessionId, some);
}

/** Returns the batch in a segment that has this hash, if there is one. */
export async function selectCopy(sql: Sql, sessionId: bigint, hash: bigint): Promise<SessionPage> {
  return await select(sql, sessionId, sql`hash = ${BigInt.asIntN(64, hash)}`);
}

async function select(
  sql: Sql,
  sessionId: bigint,
  some: postgres.PendingQuery<postgres.Row[]>,
): Promise<SessionPage> {
  // One statement, because a batch may move into an archive between two.
  const rows = await sql<(PiecesRow | BatchRow)[]>`
    (select segment_id as "segmentId", "offset", length, bytes, hash, flags, messages, received_at as "receivedAt",
      (extract(epoch from first_at) * 1000)::float8 as "firstAt", (extract(epoch from last_at) * 1000)::float8 as "lastAt",
      null::jsonb as pieces
    from batches where session_id = ${sessionId} and ${some})
    union all
    select null, null, null, null, null, null, null, null, null, null, jsonb_agg(jsonb_build_object(
      'id', archive_id, 'projectId', project_id, 'day', day, 'start', start, 'length', length, 'indexStart', index_start,
      'batches', batches, 'quarantined', quarantined, 'segmentId', first_segment, 'offset', first_offset,
      'firstReceived', extract(epoch from first_received) * 1000, 'lastReceived', extract(epoch from last_received) * 1000
    ))
    from session_pieces join archives on archives.id = archive_id
    where session_id = ${sessionId} and batches > 0
    having count(*) > 0`;
  const page: SessionPage = { pieces: [], batches: [] };
  for (const row of rows)
    if (row.pieces !== null) page.pieces = row.pieces;
    else
      page.batches.push({
        ...row,
        hash: BigInt.asUintN(64, row.hash),
        receivedAt: row.receivedAt.getTime(),
      });
  return page;
}

/** Merges the batches in segments with those of pieces. Yields a batch as often as it is stored. */
export class Merge {
  #batches: LandingBatch[];
  #nth = 0;
  #cursors: PieceCursor[];
  readonly #pageBatches: number;
  readonly #pieces: Set<string>;

  constructor(batches: LandingBatch[], cursors: PieceCursor[], pageBatches: number) {
    this.#batches = batches;
    this.#cursors = cursors;
    this.#pageBatches = pageBatches;
    this.#pieces = new Set(cursors.map(({ id }) => id));
  }

  /** True if there may be more batches in segments. */
  get isPageDone(): boolean {
    return this.#nth === this.#batches.length && this.#nth === this.#pageBatches;
  }

  /** Takes the next page; returns false if it shows a piece that is not merged. */
  add({ batches, pieces }: SessionPage): boolean {
    this.#batches = batches;
    this.#nth = 0;
    return pieces.every(({ id }) => this.#pieces.has(id));
  }

  async next(): Promise<StoredBatch | Unlisted | undefined> {
    for (;;) {
      const row = this.#batches[this.#nth];
      const cursor = this.#cursors.reduce<PieceCursor | undefined>(
        (least, one) => (least === undefined || byOrigin(one.place, least.place) < 0 ? one : least),
        undefined,
      );
      if (cursor === undefined || (row !== undefined && byOrigin(row, cursor.place) < 0)) {
        this.#nth++;
        return row;
      }
      const batch = await cursor.next();
      if (batch !== undefined) return batch;
      if (!cursor.isDone) continue;
      this.#cursors = this.#cursors.filter((one) => one !== cursor);
      const { unlisted } = cursor;
      if (unlisted !== undefined) return unlisted;
    }
  }
}

/** Batches of a piece in their order. Its indexes are not read before the first of them is due. */
export class PieceCursor {
  readonly #row: PieceRow;
  readonly #piece: PieceReader;
  readonly #batches: AsyncGenerator<PlacedBatch | Lost>;
  readonly #quarantined: boolean | undefined;
  #head: PlacedBatch | undefined;
  #found = 0;
  #lost: Lost | undefined;
  /** The place of the next batch, or one before it. */
  place: Origin;
  isDone = false;

  constructor(row: PieceRow, piece: PieceReader, quarantined: boolean | undefined) {
    this.#row = row;
    this.#piece = piece;
    this.#batches = piece.batches();
    this.#quarantined = quarantined;
    this.place = row;
  }

  get id(): string {
    return this.#row.id;
  }

  /** Returns the batch at `place`. Returns undefined once it knows the place of the next one. */
  async next(): Promise<PlacedBatch | undefined> {
    const batch = this.#head;
    this.#head = undefined;
    if (batch !== undefined) return batch;
    for (;;) {
      const { done, value } = await this.#batches.next();
      if (done === true) this.isDone = true;
      else if (value instanceof Lost) this.#lost ??= value;
      else if (this.#isWanted(value)) {
        this.#found++;
        this.#head = this.place = value;
      }
      if (this.isDone || this.#head !== undefined) return undefined;
    }
  }

  /** Batches that the piece should have, and that its indexes did not list. */
  get unlisted(): Unlisted | undefined {
    const { batches, quarantined, firstReceived: from, lastReceived: to } = this.#row;
    const expected =
      this.#quarantined === undefined
        ? batches
        : this.#quarantined
          ? quarantined
          : batches - quarantined;
    if (this.#found >= expected) return undefined;
    const cause = new SegmentError("its indexes do not list all batches of a session");
    const lost = this.#lost ?? new Lost("damaged", this.#piece.key, cause);
    return { lost, batches: expected - this.#found, from, to };
  }

  #isWanted({ flags }: PlacedBatch): boolean {
    const isQuarantined = (flags & FLAG.quarantined) !== 0;
    return this.#quarantined === undefined || isQuarantined === this.#quarantined;
  }
}
