import { type Queryable } from "../platform/database/database.ts";
import { arrayLiteral, unnested } from "../platform/database/unnested.ts";
import { type Archive, type Piece, insertArchives } from "./piece.ts";
import { type Origin } from "./piece-index.ts";

/** A batch that was moved into an archive. */
export type MovedBatch = Origin & { sessionId: bigint };
/** A session's row as it was when its records were read; a project of 0 is none. */
export type KnownSession = { id: bigint; projectId: number };
/** A segment that was read, and the sessions that have batches in it. */
export type SourceSegment = {
  id: string;
  sessions: Iterable<bigint>;
  /** True if a row in it could not be read: it is archived again once it can be. */
  lacksRows?: boolean;
};

/** Rows that a step has written objects for, and those that they replace. */
export type Step = {
  archives: Archive[];
  pieces: Piece[];
  batches: MovedBatch[];
  /** Sessions of the pieces that have a row. */
  sessions: KnownSession[];
  /** Segments of which everything that could be read is in archives now. */
  segments: SourceSegment[];
};

/** Thrown if rows are no longer what they were when their records were read. */
export class Overtaken extends Error {
  override readonly name = "Overtaken";
}

/**
 * Replaces the rows of batches by those of the archives that have them, in a transaction. Locks and
 * checks everything that the step relies on, always in the same order, and throws Overtaken if
 * another process has changed it. Returns the segments of which something is still needed.
 */
export async function swapIn(sql: Queryable, step: Step): Promise<string[]> {
  // The locks of a process that is frozen must not keep others waiting.
  await sql`set local idle_in_transaction_session_timeout = '10s'`;
  await lockSegments(sql, step.segments);
  await lockSessions(sql, step.sessions);
  await insertArchives(sql, step.archives, step.pieces);
  await deleteBatches(sql, step.batches);
  return await endSegments(sql, step.segments);
}

async function lockSegments(sql: Queryable, segments: SourceSegment[]): Promise<void> {
  if (segments.length === 0) return;
  const { count } = await sql`
    select from segments where id = any(${segments.map(({ id }) => id)}) and not deleted and archived_at is null
    order by id for update`;
  if (count !== segments.length) throw new Overtaken("a segment was archived or deleted meanwhile");
}

/** The locks keep the rows from being deleted until the transaction ends. */
async function lockSessions(sql: Queryable, sessions: KnownSession[]): Promise<void> {
  if (sessions.length === 0) return;
  const rows = sessions.map(({ id, projectId }) => ({ session: id, project: projectId }));
  const { count } = await sql`
    select from ${unnested(sql, rows, { session: "bigint", project: "integer" })}
    join sessions on id = session and coalesce(project_id, 0) = project
    order by id for key share of sessions`;
  if (count !== sessions.length)
    throw new Overtaken("a session was deleted or assigned to a project meanwhile");
}

async function deleteBatches(sql: Queryable, batches: MovedBatch[]): Promise<void> {
  if (batches.length === 0) return;
  const rows = batches.map(({ sessionId, segmentId, offset }) => ({
    session: sessionId,
    segment: segmentId,
    place: offset,
  }));
  // Locked in the order in which others write them, so that two processes cannot deadlock.
  const { count } = await sql`
    with moved as materialized (
      select session_id, segment_id, "offset"
      from ${unnested(sql, rows, { session: "bigint", segment: "uuid", place: "integer" })}
      join batches on (session_id, segment_id, "offset") = (session, segment, place)
      order by session_id, hash for update of batches
    )
    delete from batches using moved
    where (batches.session_id, batches.segment_id, batches."offset") = (moved.session_id, moved.segment_id, moved."offset")`;
  if (count !== batches.length) throw new Overtaken("a batch was moved or deleted meanwhile");
}

/** Marks segments as archived, except for those that are still needed, and returns these. */
async function endSegments(sql: Queryable, segments: SourceSegment[]): Promise<string[]> {
  if (segments.length === 0) return [];
  const needed = await referredSegments(sql, segments);
  for (const { id, lacksRows } of segments) if (lacksRows === true) needed.add(id);
  await sql`
    update segments set leased_until = null,
      archived_at = case when id = any(${arrayLiteral(needed)}::text::uuid[]) then null else now() end
    where id = any(${arrayLiteral(segments.map(({ id }) => id))}::text::uuid[])`;
  return [...needed];
}

/** Returns those of the segments that rows of batches refer to. */
export async function referredSegments(
  sql: Queryable,
  segments: SourceSegment[],
): Promise<Set<string>> {
  const pairs = segments.flatMap(({ id, sessions }) =>
    Array.from(sessions, (session) => ({ session, segment: id })),
  );
  if (pairs.length === 0) return new Set();
  const rows = await sql<{ segment: string }[]>`
    select distinct segment from ${unnested(sql, pairs, { session: "bigint", segment: "uuid" })}
    where exists (select from batches where (session_id, segment_id) = (session, segment))`;
  return new Set(rows.map(({ segment }) => segment));
}
