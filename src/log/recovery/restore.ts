import { type Queryable } from "../../platform/database/database.ts";
import { arrayLiteral, unnested } from "../../platform/database/unnested.ts";
import { unassignedOf, moveImages } from "../unassigned-images.ts";
import { insertImages } from "../image-index.ts";
import { mergeProject } from "../project-merge.ts";
import { batchColumns } from "../segment-index.ts";
import { sessionTime } from "../session-time.ts";
import { COLUMNS, type SessionRecord, type StoredSegment, isHashed } from "../stored-segment.ts";
import { restoreUnhashed } from "./unhashed-images.ts";
import { type Precedence, replaceBatch, unreadableOf } from "../unreadable.ts";

/**
 * Inserts rows for the segments that have none, and returns those segments. Waits for another
 * process that inserts the same rows.
 */
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

/**
 * `newerGiveWay`: existing rows that are newer than the restored ones are replaced, as if the
 * restored ones had been stored first; otherwise existing rows stay.
 */
export type RestoreOptions = { newerGiveWay: boolean };

/** Number of rows that were added, and ids of projects whose id or key another one had, too. */
export type Restored = { added: number; contested: number[] };

/** Adds the records of claimed segments, which must be in the order of their ids, to the index. */
export async function restoreRows(
  sql: Queryable,
  segments: StoredSegment[],
  options: RestoreOptions,
): Promise<Restored> {
  const contested: number[] = [];
  for (const record of segments.flatMap(({ projects }) => projects))
    if (await mergeProject(sql, record)) contested.push(record.id);
  // The order is the same everywhere, so that two processes cannot deadlock over the same rows.
  const sessions = await restoreSessions(
    sql,
    segments.flatMap((segment) => segment.sessions),
  );
  const unhashed = await restoreUnhashedImages(sql, segments, options);
  const images = await restoreImages(sql, segments, options);
  const batches = await restoreBatches(sql, segments, options);
  await moveImages(
    sql,
    segments.flatMap((segment) => [
      ...segment.sessions.map(({ id }) => id),
      ...unassignedOf(segment),
    ]),
  );
  return { added: sessions + unhashed + images + batches, contested };
}

/**
 * Inserts the sessions' rows. A recorded session start replaces a row without a project, which was
 * made for batches that came while the database was lost, and one without a platform, which was made
 * for a record that is damaged.
 */
async function restoreSessions(sql: Queryable, records: SessionRecord[]): Promise<number> {
  if (records.length === 0) return 0;
  const excluded = COLUMNS.session.replaceAll(/\w+/g, "excluded.$&");
  const { count } = await sql`
    insert into sessions as known (${sql.unsafe(COLUMNS.session)})
    select distinct on (id) ${sql.unsafe(COLUMNS.session)} from jsonb_populate_recordset(null::sessions, ${JSON.stringify(records)}::text::jsonb)
    order by id, project_id nulls last, platform nulls last
    on conflict (id) do update set (${sql.unsafe(COLUMNS.session)}) = (${sql.unsafe(excluded)})
    where excluded.project_id is not null
      and (known.project_id is null or (known.platform is null and excluded.platform is not null))`;
  return count;
}

/**
 * Inserts rows for sessions that have none, so that facts about them have a place; their own
 * records replace these, should they be found.
 */
export async function insertUnknown(sql: Queryable, ids: Iterable<bigint>): Promise<void> {
  const rows = Array.from(new Set(ids), (id) => ({ session: id, started_ms: sessionTime(id) }));
  if (rows.length === 0) return;
  await sql`
    insert into sessions (id, started_at) select session, to_timestamp(started_ms / 1000)
    from ${unnested(sql, rows, { session: "bigint", started_ms: "float8" })}
    where not exists (select from sessions where id = session) order by session on conflict (id) do nothing`;
}

async function restoreImages(
  sql: Queryable,
  segments: StoredSegment[],
  options: RestoreOptions,
): Promise<number> {
  const hashed = segments.map(({ id, images }) => ({ id, images: images.filter(isHashed) }));
  if (hashed.every(({ images }) => images.length === 0)) return 0;
  const unreadable = await unreadableOf(sql, chunkSegments(hashed));
  const [row] = await sql<[{ added: number }]>`
    with ${insertImages(sql, hashed, precedenceOf(options), unreadable)}
    select (select count(*) filter (where added) from contents)::integer
      + (select count(*) filter (where added) from uses)::integer as added`;
  return row.added;
}

/** Returns the segments that the images' chunks are in. */
export function chunkSegments(segments: Pick<StoredSegment, "id" | "images">[]): Set<string> {
  return new Set(
    segments.flatMap(({ id, images }) =>
      images.flatMap(({ chunk_segments: chunks }) => chunks.map((chunk) => chunk ?? id)),
    ),
  );
}

async function restoreUnhashedImages(
  sql: Queryable,
  segments: StoredSegment[],
  options: RestoreOptions,
): Promise<number> {
  const unhashed = segments.map(({ id, images }) => ({
    id,
    images: images.filter((image) => !isHashed(image)),
  }));
  return await restoreUnhashed(sql, unhashed, options);
}

/** Inserts the rows of the segments' batches. */
export async function restoreBatches(
  sql: Queryable,
  segments: Pick<StoredSegment, "id" | "entries">[],
  options: RestoreOptions,
): Promise<number> {
  const b = batchColumns(segments);
  if (b.segment === "{}") return 0;
  const { count } = await sql`
    insert into batches (session_id, segment_id, "offset", length, bytes, hash, flags, messages, first_at, last_at, received_at)
    select distinct on (session_id, hash) session_id, (${segments.map(({ id }) => id)}::uuid[])[segment], "offset", length, bytes, hash,
      flags, messages, to_timestamp(first_ms / 1000), to_timestamp(last_ms / 1000), to_timestamp(received_ms / 1000)
    from unnest(${b.segment}::text::integer[], ${b.sessionId}::text::bigint[], ${b.offset}::text::integer[], ${b.length}::text::integer[],
      ${b.bytes}::text::integer[], ${b.hash}::text::bigint[], ${b.flags}::text::smallint[], ${b.messages}::text::integer[],
      ${b.firstAt}::text::float8[], ${b.lastAt}::text::float8[], ${b.receivedAt}::text::float8[])
      as batch (segment, session_id, "offset", length, bytes, hash, flags, messages, first_ms, last_ms, received_ms)
    order by session_id, hash, segment, "offset"
    on conflict (session_id, hash) ${replaceBatch(sql, precedenceOf(options))}`;
  return count;
}

/**
 * Returns whether a segment without new records must be kept: rows refer to it, or an existing row
 * may come from this segment alone. A session start is recorded only once; an image row comes from
 * this very record, or from one without a hash and with other bytes.
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
      select from image_uses join image_contents using (project_id, name, sha256)
      where session_id = any(${owners}::text::bigint[]) and ${id} = any(chunk_segments)
    ) or exists (
      select from images join jsonb_to_recordset(${JSON.stringify(images.filter((image) => !isHashed(image)))}::text::jsonb)
        as record (project_id integer, name text, bytes bigint, crc32 bigint, stored_at timestamptz) using (project_id, name)
      where (images.bytes, images.crc32) <> (record.bytes, record.crc32) or images.stored_at = record.stored_at
    ) or exists (
      select from jsonb_to_recordset(${JSON.stringify(images.filter(isHashed))}::text::jsonb)
        as record (project_id integer, name text, sha256 text, session_id bigint, stored_at timestamptz)
        join image_uses as used on (used.session_id, used.name, used.sha256) = (record.session_id, record.name, decode(record.sha256, 'hex'))
        join image_contents as content on (content.project_id, content.name, content.sha256) = (used.project_id, used.name, used.sha256)
      where record.stored_at in (used.sent_at, content.stored_at)
    ) as needed`;
  return row.needed;
}

function precedenceOf({ newerGiveWay }: RestoreOptions): Precedence {
  return newerGiveWay ? "earlier" : "stays";
}

/**
 * Deletes the rows of missing segments that no other row refers to, and returns their ids: all that
 * they had is in archives. Without a tombstone, because an object that came back would be deleted.
 */
export async function takeOutArchived(sql: Queryable, ids: string[]): Promise<Set<string>> {
  const rows = await sql<{ id: string }[]>`
    delete from segments where id = any(${ids}) and not deleted and id not in (
      select segment_id from batches where segment_id = any(${ids})
      union select unnest(chunk_segments) from image_contents where chunk_segments && ${ids}
      union select unnest(chunk_segments) from images where chunk_segments && ${ids}
    )
    returning id`;
  return new Set(rows.map(({ id }) => id));
}
