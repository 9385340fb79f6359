import { unpack } from "msgpackr";
import postgres from "postgres";

import { type Queryable, type Sql } from "../platform/database/database.ts";
import { SegmentDeleted } from "./commit-deadline.ts";
import { unassignedOf, moveImages } from "./unassigned-images.ts";
import { insertImages } from "./image-index.ts";
import { mergeProject } from "./project-merge.ts";
import { FLAG, type Kind } from "./record.ts";
import { type Segment } from "./segment.ts";
import {
  COLUMNS,
  type HashedImage,
  type ProjectRecord,
  type SessionRecord,
} from "./stored-segment.ts";
import { replaceBatch } from "./unreadable.ts";

/** Numbers of batches that are new, and of those that the session had already. */
export type Indexed = { stored: number; duplicates: number };

/**
 * Inserts the rows of a stored segment in one transaction: its own, those of its batches, and those
 * in its other records. Leaves out batches that the session has already, unless their copy is
 * unreadable; changes nothing if the segment is indexed already. Throws SegmentDeleted if the
 * segment was deleted as an orphan.
 */
export async function indexSegment(sql: Sql, segment: Segment): Promise<Indexed> {
  try {
    const projects = records<ProjectRecord>(segment, "project");
    const unassigned = unassignedOf(segment);
    // Nearly always there are neither, so that one statement is enough.
    if (projects.length === 0 && unassigned.length === 0) return await insertSegment(sql, segment);
    return await sql.begin(async (transaction) => {
      const indexed = await insertSegment(transaction, segment);
      for (const record of projects) await mergeProject(transaction, record);
      await moveImages(transaction, unassigned);
      return indexed;
    });
  } catch (error) {
    if (!(error instanceof postgres.PostgresError && error.constraint_name === "segments_pkey"))
      throw error;
    // An earlier attempt succeeded, but its answer was lost; or the segment was deleted as an orphan.
    const [row] = await sql<
      { deleted: boolean }[]
    >`select deleted from segments where id = ${segment.id}`;
    if (row?.deleted !== false) throw new SegmentDeleted(`segment ${segment.id} was deleted`);
    return { stored: 0, duplicates: 0 };
  }
}

/** Leaves out parts for records that the segment has none of: even empty they cost PostgreSQL time. */
async function insertSegment(sql: Queryable, segment: Segment): Promise<Indexed> {
  const sessions = records<SessionRecord>(segment, "session");
  const images = records<HashedImage>(segment, "image");
  const sent = segment.entries.filter(({ kind }) => kind === "batch").length;
  const none = sql``;
  const [counts] = await sql<[{ stored: number }]>`
    with segment as (
      insert into segments (id, bytes, records, facts_written)
      values (${segment.id}, ${segment.bytes.length}, ${segment.entries.length}, ${sent === 0})
    )
    ${sessions.length === 0 ? none : sql`, ${insertSessions(sql, sessions)}`}
    ${images.length === 0 ? none : sql`, ${insertImages(sql, [{ id: segment.id, images }], "stays")}`}
    ${sent === 0 ? none : sql`, ${insertBatches(sql, segment)}`}
    select ${sent === 0 ? sql`0` : sql`count(*)::integer`} as stored ${sent === 0 ? none : sql`from new_batches`}`;
  return { stored: counts.stored, duplicates: sent - counts.stored };
}

function insertSessions(sql: Queryable, sessions: SessionRecord[]) {
  return sql`
    new_sessions as (
      insert into sessions (${sql.unsafe(COLUMNS.session)})
      select ${sql.unsafe(COLUMNS.session)} from jsonb_populate_recordset(null::sessions, ${JSON.stringify(sessions)}::text::jsonb)
      -- The order, here and below, is the same everywhere, so that two processes cannot deadlock over the same rows.
      order by id
      on conflict (id) do nothing
    )`;
}

function insertBatches(sql: Queryable, segment: Segment) {
  const b = batchColumns([segment]);
  return sql`
    new_batches as (
      insert into batches (session_id, segment_id, "offset", length, bytes, hash, flags, messages, first_at, last_at, received_at)
      -- Each batch once, because a statement can update a row only once.
      select distinct on (session_id, hash) session_id, ${segment.id}::uuid, "offset", length, bytes, hash, flags, messages,
        to_timestamp(first_ms / 1000), to_timestamp(last_ms / 1000), to_timestamp(received_ms / 1000)
      from unnest(${b.sessionId}::text::bigint[], ${b.offset}::text::integer[], ${b.length}::text::integer[],
        ${b.bytes}::text::integer[], ${b.hash}::text::bigint[], ${b.flags}::text::smallint[], ${b.messages}::text::integer[],
        ${b.firstAt}::text::float8[], ${b.lastAt}::text::float8[], ${b.receivedAt}::text::float8[])
        as batch (session_id, "offset", length, bytes, hash, flags, messages, first_ms, last_ms, received_ms)
      order by session_id, hash, "offset"
      on conflict (session_id, hash) ${replaceBatch(sql, "stays")}
      returning 1
    )`;
}

/**
 * Returns a PostgreSQL array literal for each column, at half the cost of the driver's own.
 * `segment` counts from 1.
 */
export function batchColumns(segments: Pick<Segment, "entries">[]) {
  const columns = {
    segment: "",
    sessionId: "",
    offset: "",
    length: "",
    bytes: "",
    hash: "",
    flags: "",
    messages: "",
    firstAt: "",
    lastAt: "",
    receivedAt: "",
  };
  for (const [index, { entries }] of segments.entries())
    for (const { kind, sessionId, offset, length, flags, receivedAt, facts } of entries) {
      if (kind !== "batch" || facts === undefined) continue;
      const comma = columns.offset === "" ? "" : ",";
      columns.segment += `${comma}${index + 1}`;
      columns.sessionId += `${comma}${sessionId}`;
      columns.offset += `${comma}${offset}`;
      columns.length += `${comma}${length}`;
      columns.bytes += `${comma}${facts.bytes}`;
      columns.hash += `${comma}${BigInt.asIntN(64, facts.hash)}`;
      columns.flags += `${comma}${flags}`;
      columns.messages += `${comma}${facts.messages}`;
      columns.firstAt += `${comma}${facts.firstAt}`;
      columns.lastAt += `${comma}${facts.lastAt}`;
      columns.receivedAt += `${comma}${receivedAt}`;
    }
  for (const [name, values] of Object.entries(columns))
    Object.assign(columns, { [name]: `{${values}}` });
  return columns;
}

/** Returns the records that the database does not have yet. */
function records<Row>(segment: Segment, kind: Kind): Row[] {
  return segment.entries
    .filter((entry) => entry.kind === kind && (entry.flags & FLAG.indexed) === 0)
    .map(({ offset, length }) => unpack(segment.bytes.subarray(offset, offset + length)));
}
