import { type Queryable } from "../platform/database/database.ts";
import { unnested } from "../platform/database/unnested.ts";
import { FLAG } from "../log/record.ts";
import { type ArchiveName } from "./archive-key.ts";
import { type ArchivedBatch } from "./piece-index.ts";

/**
 * Row of `session_pieces`: the records of a session in one archive. Times are in ms since the epoch,
 * and null if there are no batches.
 */
export type Piece = {
  sessionId: bigint;
  archiveId: string;
  /** Range of the archive's bytes, from the first record's header. */
  start: number;
  length: number;
  /** Start of its indexes, which are its last records. */
  indexStart: number;
  batches: number;
  quarantined: number;
  messages: number;
  /** Size of the batches when inflated. */
  bytes: number;
  /** Origin of the first batch. */
  firstSegment: string | null;
  firstOffset: number | null;
  firstReceived: number | null;
  lastReceived: number | null;
  firstAt: number | null;
  lastAt: number | null;
};

/** Row of `archives`. */
export type Archive = ArchiveName & {
  kind: "sessions" | "images" | "projects";
  bytes: number;
  records: number;
};

export function emptyPiece(place: Pick<Piece, "sessionId" | "archiveId" | "start">): Piece {
  return {
    ...place,
    length: 0,
    indexStart: place.start,
    batches: 0,
    quarantined: 0,
    messages: 0,
    bytes: 0,
    firstSegment: null,
    firstOffset: null,
    firstReceived: null,
    lastReceived: null,
    firstAt: null,
    lastAt: null,
  };
}

/** Counts another batch, which comes after the others in the order of commits. */
export function addBatch(piece: Piece, batch: ArchivedBatch): void {
  piece.batches++;
  if ((batch.flags & FLAG.quarantined) !== 0) piece.quarantined++;
  piece.messages += batch.messages;
  piece.bytes += batch.bytes;
  piece.firstSegment ??= batch.segmentId;
  piece.firstOffset ??= batch.offset;
  piece.firstReceived = least(piece.firstReceived, batch.receivedAt);
  piece.lastReceived = greatest(piece.lastReceived, batch.receivedAt);
  piece.firstAt = least(piece.firstAt, batch.firstAt);
  piece.lastAt = greatest(piece.lastAt, batch.lastAt);
}

/** Inserts the rows of archives and their pieces. */
export async function insertArchives(
  sql: Queryable,
  archives: Archive[],
  pieces: Piece[],
): Promise<void> {
  const types = {
    id: "uuid",
    projectId: "integer",
    day: "date",
    kind: "text",
    bytes: "bigint",
    records: "integer",
  };
  await sql`
    insert into archives (id, project_id, day, kind, bytes, records)
    select * from ${unnested(sql, archives, types)}`;
  if (pieces.length === 0) return;
  const columns = {
    sessionId: "bigint",
    archiveId: "uuid",
    start: "bigint",
    length: "bigint",
    indexStart: "bigint",
    batches: "integer",
    quarantined: "integer",
    messages: "bigint",
    bytes: "bigint",
    firstSegment: "uuid",
    firstOffset: "integer",
    firstReceived: "float8",
    lastReceived: "float8",
    firstAt: "float8",
    lastAt: "float8",
  };
  await sql`
    insert into session_pieces (session_id, archive_id, start, length, index_start, batches, quarantined, messages, bytes,
      first_segment, first_offset, first_received, last_received, first_at, last_at)
    select sessionId, archiveId, start, length, indexStart, batches, quarantined, messages, bytes, firstSegment, firstOffset,
      to_timestamp(firstReceived / 1000), to_timestamp(lastReceived / 1000), to_timestamp(firstAt / 1000), to_timestamp(lastAt / 1000)
    from ${unnested(sql, pieces, columns)}`;
}

function least(a: number | null, b: number | null): number | null {
  return a === null || b === null ? (a ?? b) : Math.min(a, b);
}

function greatest(a: number | null, b: number | null): number | null {
  return a === null || b === null ? (a ?? b) : Math.max(a, b);
}
