import { type Queryable, type Sql } from "../platform/database/database.ts";
import { arrayLiteral, unnested } from "../platform/database/unnested.ts";
import { segmentTime } from "../log/segment.ts";
import { type LabelColumns, Labels, type StoredLabels } from "./labels.ts";
import { type SessionFacts, type FactsOfBatch, addFacts, bySession } from "./session-facts.ts";

/** Facts of a segment's batches by session. */
export type SegmentFacts = { id: string; sessions: Map<bigint, SessionFacts> };
/** Facts about sessions, and when the last of their batches was received. */
export type DatedFacts = { facts: Map<bigint, SessionFacts>; receivedMs: Map<bigint, number> };

const PAGE_SESSIONS = 5000;
// Time by which a session may seem to be longer than data came in of it: clients' clocks differ.
const CLOCK_SLACK_S = 300;

const TYPES = {
  id: "bigint",
  events: "bigint",
  clicks: "bigint",
  page_views: "bigint",
  errors: "bigint",
  first_ms: "float8",
  last_ms: "float8",
  received_ms: "float8",
  labels: "jsonb",
  pages: "text",
  dated_labels: "jsonb",
};

/**
 * Adds the facts of segments to the rows of their sessions, each segment's once: other processes
 * may have them, too.
 */
export async function writeFacts(sql: Sql, segments: SegmentFacts[]): Promise<void> {
  const ids = segments.map(({ id }) => id).toSorted();
  await sql.begin(async (transaction) => {
    const claimed = await transaction<{ id: string }[]>`
      update segments set facts_written = true where id = any(${arrayLiteral(ids)}::text::uuid[]) and not facts_written
      returning id`;
    const isClaimed = new Set(claimed.map(({ id }) => id));
    const dated: DatedFacts = { facts: new Map(), receivedMs: new Map() };
    for (const { id, sessions } of segments) if (isClaimed.has(id)) addDated(dated, id, sessions);
    await addToSessions(transaction, dated);
  });
}

/** Returns the facts of those batches that are stored in their segments, not of duplicates. */
export async function storedFacts(
  sql: Sql,
  segments: ReadonlyMap<string, FactsOfBatch[]>,
): Promise<SegmentFacts[]> {
  const pairs = [...segments].flatMap(([segment, batches]) =>
    [...new Set(batches.map(({ sessionId }) => sessionId))].map((session) => ({
      session,
      segment,
    })),
  );
  if (pairs.length === 0) return [...segments.keys()].map((id) => ({ id, sessions: new Map() }));
  const rows = await sql<{ batch: string }[]>`
    select concat_ws(' ', segment_id, session_id, hash) as batch
    from ${unnested(sql, pairs, { session: "bigint", segment: "uuid" })}
    join batches on (session_id, segment_id) = (session, segment)`;
  const stored = new Set(rows.map(({ batch }) => batch));
  return [...segments].map(([id, batches]) => {
    // Deleted when found, because a segment may have the same batch twice.
    const isStored = ({ sessionId, hash }: FactsOfBatch) =>
      stored.delete(`${id} ${sessionId} ${BigInt.asIntN(64, hash)}`);
    return { id, sessions: bySession(batches.filter(isStored)) };
  });
}

/** Adds facts of batches that were stored in a segment. */
export function addDated(
  { facts, receivedMs }: DatedFacts,
  segmentId: string,
  sessions: Iterable<readonly [bigint, SessionFacts]>,
): void {
  const ms = segmentTime(segmentId);
  for (const [sessionId, added] of sessions) {
    addFacts(facts, sessionId, added);
    receivedMs.set(sessionId, Math.max(receivedMs.get(sessionId) ?? 0, ms));
  }
}

export async function addToSessions(
  sql: Queryable,
  { facts, receivedMs }: DatedFacts,
): Promise<void> {
  const sessions = [...facts].toSorted(([a], [b]) => (a < b ? -1 : 1));
  for (let at = 0; at < sessions.length; at += PAGE_SESSIONS) {
    const page = new Map(sessions.slice(at, at + PAGE_SESSIONS));
    const known = await lockSessions(sql, page);
    const rows = Array.from(page, ([id, one]) => ({
      id,
      events: one.events,
      clicks: one.clicks,
      page_views: one.pageViews,
      errors: one.errors,
      first_ms: one.firstAt,
      last_ms: one.lastAt,
      received_ms: receivedMs.get(id),
      ...labelColumns(one.labels, known.get(id)),
    }));
    await updateSessions(sql, rows);
  }
}

/** Returns the columns of the labels, or nulls if there is nothing new in them. */
function labelColumns(labels: Labels | undefined, stored: StoredLabels = {}) {
  const none = { labels: null, pages: null, dated_labels: null };
  if (labels === undefined) return none;
  const known = Labels.of(stored);
  const before = JSON.stringify(known.columns.dated_labels);
  known.merge(labels);
  const { labels: found, pages, dated_labels }: LabelColumns = known.columns;
  const dated = JSON.stringify(dated_labels);
  return dated === before ? none : { labels: JSON.stringify(found), pages, dated_labels: dated };
}

/**
 * Locks the rows of the sessions, and returns the labels of those that get more. The order is the same everywhere, so that
 * two processes cannot deadlock over the same rows.
 */
async function lockSessions(
  sql: Queryable,
  sessions: Map<bigint, SessionFacts>,
): Promise<Map<bigint, StoredLabels>> {
  const labelled = [...sessions].flatMap(([id, { labels }]) => (labels === undefined ? [] : id));
  const rows = await sql<{ id: string; stored: StoredLabels }[]>`
    with locked as materialized (
      select sessions.id, dated_labels
      -- Joined, because a condition would read the array anew for every row of a sequential scan.
      from unnest(${arrayLiteral(sessions.keys())}::text::bigint[]) as asked (id) join sessions using (id)
      order by sessions.id for no key update of sessions
    )
    select locked.id::text, dated_labels as stored
    from unnest(${arrayLiteral(labelled)}::text::bigint[]) as asked (id) join locked using (id)`;
  return new Map(rows.map(({ id, stored }) => [BigInt(id), stored]));
}

async function updateSessions(
  sql: Queryable,
  rows: Parameters<typeof unnested<typeof TYPES>>[1],
): Promise<void> {
  await sql`
    update sessions as known set
      events = known.events + record.events,
      clicks = known.clicks + record.clicks,
      page_views = known.page_views + record.page_views,
      errors = known.errors + record.errors,
      first_at = least(known.first_at, to_timestamp(first_ms / 1000)),
      last_at = greatest(known.last_at, to_timestamp(last_ms / 1000)),
      received_at = greatest(known.received_at, to_timestamp(received_ms / 1000)),
      duration_ms = 1000 * greatest(0, least(
        coalesce(extract(epoch from greatest(known.last_at, to_timestamp(last_ms / 1000))
          - least(known.first_at, to_timestamp(first_ms / 1000))), 0),
        extract(epoch from greatest(known.received_at, to_timestamp(received_ms / 1000)) - known.started_at) + ${CLOCK_SLACK_S})),
      labels = coalesce(record.labels, known.labels),
      pages = coalesce(record.pages::text[], known.pages),
      dated_labels = coalesce(record.dated_labels, known.dated_labels)
    from ${unnested(sql, rows, TYPES)}
    where known.id = record.id`;
}
