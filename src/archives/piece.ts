import { type Queryable } from "../platform/database/database.ts";
import { unnested } from "../platform/database/unnested.ts";
import { FLAG } from "../log/record.ts";
import { type ArchiveName } from "./archive-key.ts";
import { type ArchivedBatch } from "./group.ts";

/** Row of `session_pieces`: the batches of a session in one archive. Times are in ms since the epoch. */
export type Piece = {
  sessionId: bigint;
  archiveId: string;
  /** Range of the archive's bytes, from the first record's header. */
  start: number;
  length: number;
  batches: number;
  quarantined: number;
  messages: number;
  bytes: number;
  firstSegment: string;
  firstOffset: number;
  lastSegment: string;
  lastOffset: number;
  firstReceived: number;
  lastReceived: number;
  firstAt: number | null;
  lastAt: number | null;
};

/** Row of `archives`. */
export type Archive = ArchiveName & {
  kind: "sessions" | "images";
  bytes: number;
  records: number;
};

/** Summarizes batches in the order of commits; there must be one at least. */
export function pieceOf(
  place: Pick<Piece, "sessionId" | "archiveId" | "start" | "length">,
  batches: ArchivedBatch[],
): Piece {
  const [first, last] = [batches[0], batches.at(-1)];
  if (first === undefined || last === undefined) throw new RangeError("a piece has no batches");
  const piece: Piece = {
    ...place,
    batches: batches.length,
    quarantined: 0,
    messages: 0,
    bytes: 0,
    firstSegment: first.segmentId,
    firstOffset: first.offset,
    lastSegment: last.segmentId,
    lastOffset: last.offset,
    firstReceived: first.receivedAt,
    lastReceived: first.receivedAt,
    firstAt: null,
    lastAt: null,
  };
  for (const { flags, messages, bytes, receivedAt, firstAt, lastAt } of batches) {
    if ((flags & FLAG.quarantined) !== 0) piece.quarantined++;
    piece.messages += messages;
    piece.bytes += bytes;
    piece.firstReceived = Math.min(piece.firstReceived, receivedAt);
    piece.lastReceived = Math.max(piece.lastReceived, receivedAt);
    piece.firstAt = least(piece.firstAt, firstAt);
    piece.lastAt = greatest(piece.lastAt, lastAt);
  }
  return piece;
}

/** Joins the piece's next part, which follows it in the same archive. */
export function joinedPiece(piece: Piece, next: Piece): Piece {
  return {
    ...piece,
    length: next.start + next.length - piece.start,
    batches: piece.batches + next.batches,
    quarantined: piece.quarantined + next.quarantined,
    messages: piece.messages + next.messages,
    bytes: piece.bytes + next.bytes,
    lastSegment: next.lastSegment,
    lastOffset: next.lastOffset,
    firstReceived: Math.min(piece.firstReceived, next.firstReceived),
    lastReceived: Math.max(piece.lastReceived, next.lastReceived),
    firstAt: least(piece.firstAt, next.firstAt),
    lastAt: greatest(piece.lastAt, next.lastAt),
  };
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
    batches: "integer",
    quarantined: "integer",
    messages: "bigint",
    bytes: "bigint",
    firstSegment: "uuid",
    firstOffset: "integer",
    lastSegment: "uuid",
    lastOffset: "integer",
    firstReceived: "float8",
    lastReceived: "float8",
    firstAt: "float8",
    lastAt: "float8",
  };
  await sql`
    insert into session_pieces (session_id, archive_id, "offset", length, batches, quarantined, messages, bytes,
      first_segment, first_offset, last_segment, last_offset, first_received, last_received, first_at, last_at)
    select sessionId, archiveId, start, length, batches, quarantined, messages, bytes,
      firstSegment, firstOffset, lastSegment, lastOffset, to_timestamp(firstReceived / 1000),
      to_timestamp(lastReceived / 1000), to_timestamp(firstAt / 1000), to_timestamp(lastAt / 1000)
    from ${unnested(sql, pieces, columns)}`;
}

function least(a: number | null, b: number | null): number | null {
  return a === null || b === null ? (a ?? b) : Math.min(a, b);
}

function greatest(a: number | null, b: number | null): number | null {
  return a === null || b === null ? (a ?? b) : Math.max(a, b);
}
