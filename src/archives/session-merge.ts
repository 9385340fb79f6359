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

  /** Returns the next batch. Returns undefined at the end, or if an index has to be read before. */
  take(): StoredBatch | undefined {
    const first = this.#first();
    return first === undefined ? this.#batches[this.#nth++] : first.take();
  }

  /** Returns the next batch, or what a piece has not listed at its end. Returns undefined at the end. */
  async next(): Promise<StoredBatch | Unlisted | undefined> {
    for (;;) {
      const batch = this.take();
      const first = this.#first();
      if (batch !== undefined || first === undefined) return batch;
      await first.advance();
      if (!first.isDone) continue;
      this.#cursors = this.#cursors.filter((one) => one !== first);
      if (first.unlisted !== undefined) return first.unlisted;
    }
  }

  /** Returns the piece that has the next batch; undefined if a row is before it. */
  #first(): PieceCursor | undefined {
    let first: PieceCursor | undefined;
    for (const cursor of this.#cursors)
      if (first === undefined || byOrigin(cursor.place, first.place) < 0) first = cursor;
    const row = this.#batches[this.#nth];
    const isLater = first !== undefined && row !== undefined && byOrigin(row, first.place) < 0;
    return isLater ? undefined : first;
  }
}

/** Batches of a piece in their order. Its indexes are not read before the first of them is due. */
export class PieceCursor {
  readonly #row: PieceRow;
  readonly #piece: PieceReader;
  readonly #lists: AsyncGenerator<PlacedBatch[] | Lost>;
  readonly #quarantined: boolean | undefined;
  #list: PlacedBatch[] = [];
  #nth = 0;
  #last: Origin;
  #found = 0;
  #lost: Lost | undefined;
  isDone = false;

  constructor(row: PieceRow, piece: PieceReader, quarantined: boolean | undefined) {
    this.#row = row;
    this.#piece = piece;
    this.#lists = piece.lists();
    this.#quarantined = quarantined;
    this.#last = row;
  }

  get id(): string {
    return this.#row.id;
  }

  /** The place of the next batch, or one before it. */
  get place(): Origin {
    return this.#list[this.#nth] ?? this.#last;
  }

  /** Returns the next batch; undefined if an index has to be read before. */
  take(): PlacedBatch | undefined {
    const batch = this.#list[this.#nth++];
    this.#last = batch ?? this.#last;
    return batch;
  }

  /** Reads the next index. */
  async advance(): Promise<void> {
    const { done, value } = await this.#lists.next();
    if (done === true) this.isDone = true;
    else if (value instanceof Lost) this.#lost ??= value;
    else {
      this.#list = value.filter((batch) => this.#isWanted(batch));
      this.#nth = 0;
      this.#found += this.#list.length;
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
