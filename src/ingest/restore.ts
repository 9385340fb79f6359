import { type Queryable } from "../platform/database.ts";
import { mergeProject } from "./project-merge.ts";
import { batchColumns, firstImages, homelessOf, moveImages } from "./segment-index.ts";
import {
  COLUMNS,
  type ImageRecord,
  type SessionRecord,
  type StoredSegment,
} from "./stored-segment.ts";

/** Makes the rows of segments that have none, and returns the segments that it made them for. Another process that does the same is waited for. */
export async function claimSegments<Stored extends StoredSegment>(
  sql: Queryable,
  segments: Stored[],
): Promise<Stored[]> {
  const claimed = await sql<{ id: string }[]>`
    insert into segments (id, bytes, records)
    select * from unnest(${segments.map(({ id }) => id)}::uuid[],
      ${segments.map(({ bytes }) => bytes)}::integer[], ${segments.map(({ entries }) => entries.length)}::integer[])
    on conflict (id) do nothing returning id`;
  const ids = new Set(claimed.map(({ id }) => id));
  return segments.filter(({ id }) => ids.has(id));
}

/** `newerGiveWay`: what came later gives way to what is restored, as when it was stored first; otherwise what is there stays. */
export type RestoreOptions = { newerGiveWay: boolean };

/** How many rows came of the segments, and which projects' ids or keys were contested. */
export type Restored = { added: number; contested: number[] };

/** Adds what claimed segments hold to the index. They are given in the order of their ids. */
export async function restoreRows(
  sql: Queryable,
  segments: StoredSegment[],
  options: RestoreOptions,
): Promise<Restored> {
  const contested: number[] = [];
  for (const record of segments.flatMap(({ projects }) => projects))
    if (await mergeProject(sql, record)) contested.push(record.id);
  // In one order everywhere, so that two processes cannot deadlock over the same rows.
  const sessions = await restoreSessions(
    sql,
    segments.flatMap((segment) => segment.sessions),
  );
  const images = await restoreImages(sql, firstImages(segments), options);
  const batches = await restoreBatches(sql, segments, options);
  await moveImages(
    sql,
    segments.flatMap((segment) => [
      ...segment.sessions.map(({ id }) => id),
      ...homelessOf(segment),
    ]),
  );
  return { added: sessions + images + batches, contested };
}

/** A session that nothing was known of when its batches came, because the database was lost, gives way to what its start recorded. */
async function restoreSessions(sql: Queryable, records: SessionRecord[]): Promise<number> {
  if (records.length === 0) return 0;
  const known = records.filter((record) => record.project_id !== null).map(({ id }) => id);
  const [, inserted] = await Promise.all([
    sql`delete from sessions where id = any(${arrayLiteral(known)}::text::bigint[]) and project_id is null`,
    sql`
      insert into sessions (${sql.unsafe(COLUMNS.session)})
      select distinct on (id) ${sql.unsafe(COLUMNS.session)} from jsonb_populate_recordset(null::sessions, ${JSON.stringify(records)}::text::jsonb)
      order by id, project_id nulls last
      on conflict (id) do nothing`,
  ]);
  return inserted.count;
}

/** `recorded_in` is the segment that the record is in. */
type FirstImage = ImageRecord & { recorded_in: string };

async function restoreImages(
  sql: Queryable,
  records: Map<string, FirstImage>,
  { newerGiveWay }: RestoreOptions,
): Promise<number> {
  if (records.size === 0) return 0;
  if (newerGiveWay)
    for (const { key, uses } of await removeNewer(sql, [...records.values()])) {
      const record = records.get(key);
      if (record !== undefined) record.uses += uses;
    }
  const rows = await sql<{ added: boolean }[]>`
    insert into images (project_id, ${sql.unsafe(COLUMNS.image)})
    select project_id, ${sql.unsafe(COLUMNS.image)} from jsonb_populate_recordset(null::images, ${JSON.stringify([...records.values()])}::text::jsonb)
    order by project_id, name
    on conflict (project_id, name) do update set uses = images.uses + excluded.uses
    returning xmax = 0 as added`;
  return rows.filter(({ added }) => added).length;
}

/** An image's record is never older than its last chunk: where that is newer, so is the record. */
async function removeNewer(sql: Queryable, records: FirstImage[]) {
  return await sql<{ key: string; uses: number }[]>`
    delete from images using jsonb_to_recordset(${JSON.stringify(records)}::text::jsonb)
      as record (project_id integer, name text, recorded_in uuid)
    where images.project_id = record.project_id and images.name = record.name
      and images.chunk_segments[cardinality(images.chunk_segments)] > record.recorded_in
    returning images.project_id || '/' || images.name as key, images.uses`;
}

/** The rows of their batches. */
export async function restoreBatches(
  sql: Queryable,
  segments: Pick<StoredSegment, "id" | "entries">[],
  { newerGiveWay }: RestoreOptions,
): Promise<number> {
  const b = batchColumns(segments);
  const onConflict = newerGiveWay
    ? sql`do update set (segment_id, "offset", length, flags, received_at) =
        (excluded.segment_id, excluded."offset", excluded.length, excluded.flags, excluded.received_at)
        where (excluded.segment_id, excluded."offset") < (batches.segment_id, batches."offset")`
    : sql`do nothing`;
  const { count } = await sql`
    insert into batches (session_id, segment_id, "offset", length, bytes, hash, flags, messages, first_at, last_at, received_at)
    select distinct on (session_id, hash) session_id, (${segments.map(({ id }) => id)}::uuid[])[segment], "offset", length, bytes, hash,
      flags, messages, to_timestamp(first_ms / 1000.0), to_timestamp(last_ms / 1000.0), to_timestamp(received_ms / 1000.0)
    from unnest(${b.segment}::text::integer[], ${b.sessionId}::text::bigint[], ${b.offset}::text::integer[], ${b.length}::text::integer[],
      ${b.bytes}::text::integer[], ${b.hash}::text::bigint[], ${b.flags}::text::smallint[], ${b.messages}::text::integer[],
      ${b.firstAt}::text::bigint[], ${b.lastAt}::text::bigint[], ${b.receivedAt}::text::bigint[])
      as batch (segment, session_id, "offset", length, bytes, hash, flags, messages, first_ms, last_ms, received_ms)
    order by session_id, hash, segment, "offset"
    on conflict (session_id, hash) ${onConflict}`;
  return count;
}

/**
 * Whether the segment must stay although none of it is new: rows lie in it, or a row that is there may have come from no other one. A
 * start is recorded only once; of images, other bytes came under a name, or the row is this very record.
 */
export async function isNeeded(sql: Queryable, segment: StoredSegment): Promise<boolean> {
  const { id, entries, projects, sessions, images } = segment;
  if (projects.length > 0 || sessions.some((session) => session.project_id !== null)) return true;
  const owners = arrayLiteral(new Set(entries.map(({ sessionId }) => sessionId)));
  const [row] = await sql<[{ needed: boolean }]>`
    select exists (
      select from batches where session_id = any(${owners}::text::bigint[]) and segment_id = ${id}
    ) or exists (
      select from images where session_id = any(${owners}::text::bigint[]) and ${id} = any(chunk_segments)
    ) or exists (
      select from images join jsonb_to_recordset(${JSON.stringify(images)}::text::jsonb)
        as record (project_id integer, name text, bytes bigint, crc32 bigint, stored_at timestamptz) using (project_id, name)
      where (images.bytes, images.crc32) <> (record.bytes, record.crc32) or images.stored_at = record.stored_at
    ) as needed`;
  return row.needed;
}

function arrayLiteral(values: Iterable<string | bigint>): string {
  return `{${[...values].join()}}`;
}
