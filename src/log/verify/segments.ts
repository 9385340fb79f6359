import { LRUCache } from "lru-cache";

import { type Sql } from "../../platform/database/database.ts";
import { retryOutages } from "../../platform/database/retry-outages.ts";
import { type ObjectStore } from "../../platform/objects/objects.ts";
import { missingObjects } from "../recovery/missing-objects.ts";
import { inPages } from "../../platform/streams.ts";
import { LAST_ID, NO_ID } from "../recovery/reindex.ts";
import { segmentIdOf } from "../segment.ts";
import { type IndexedSegment, namedSegments } from "./referring-rows.ts";

const PAGE_ROWS = 1000;
const PAGE_OBJECTS = 1000;
const SESSIONS_AT_A_TIME = 500;
const NAMED_MAX = 100_000;

/** Yields every segment with a row, in the order of their ids. */
export async function* allSegments(sql: Sql): AsyncGenerator<IndexedSegment> {
  for (let after: string | undefined = NO_ID; after !== undefined;) {
    const from: string = after;
    const rows = await retryOutages(
      async () =>
        await sql<IndexedSegment[]>`
        select id, bytes, segment_id is not null as unreadable
        from segments left join unreadable_segments on segment_id = id
        where id > ${from} and not deleted order by id limit ${PAGE_ROWS}`,
    );
    yield* rows;
    after = rows.length < PAGE_ROWS ? undefined : rows.at(-1)?.id;
  }
}

/**
 * Yields the segments that rows of the project name. Each comes once as long as the project's
 * sessions of one time use no more than NAMED_MAX.
 */
export async function* projectSegments(
  sql: Sql,
  project: number,
  onSessions: (sessions: number) => void,
): AsyncGenerator<IndexedSegment> {
  const seen = new LRUCache<string, true>({ max: NAMED_MAX });
  for await (const { found } of projectPages(sql, project, onSessions))
    for (const segment of found) {
      if (seen.has(segment.id)) continue;
      seen.set(segment.id, true);
      yield segment;
    }
}

async function* projectPages(sql: Sql, project: number, onSessions: (sessions: number) => void) {
  for await (const sessions of sessionPages(sql, project)) {
    yield* namedSegments(sql, "batches", { sessions });
    yield* namedSegments(sql, "image_uses", { sessions });
    onSessions(sessions.length);
  }
  yield* namedSegments(sql, "image_contents", { project });
  yield* namedSegments(sql, "images", { project });
}

/** Yields the project's sessions from the first to the last, some at a time. */
export async function* sessionPages(sql: Sql, project: number): AsyncGenerator<bigint[]> {
  type Row = { id: bigint; at: string };
  for (let after: Row | undefined = { id: -1n, at: "-infinity" }; after !== undefined;) {
    const { id, at }: Row = after;
    const rows: Row[] = await retryOutages(
      async () =>
        await sql<Row[]>`
        select id, started_at::text as at from sessions
        where project_id = ${project} and (started_at, id) > (${at}::text::timestamptz, ${id})
        order by started_at, id limit ${SESSIONS_AT_A_TIME}`,
    );
    if (rows.length > 0) yield rows.map((row) => row.id);
    after = rows.length < SESSIONS_AT_A_TIME ? undefined : rows.at(-1);
  }
}

/**
 * Lists the store, and yields for each page the keys of missing segments with a row, and the number
 * of segments with a row that are there.
 */
export async function* listedSegments(deps: {
  sql: Sql;
  objects: ObjectStore;
}): AsyncGenerator<{ missing: string[]; present: number }> {
  let after = NO_ID;
  for await (const page of inPages(deps.objects.list("segments/"), PAGE_OBJECTS)) {
    const listed = page.map(({ key }) => segmentIdOf(key)).filter((id) => id !== undefined);
    const last = listed.at(-1);
    if (last === undefined) continue;
    for await (const missing of missingObjects(deps, { after, last, listed }))
      yield { missing, present: 0 };
    yield { missing: [], present: await countIndexed(deps.sql, listed) };
    after = last;
  }
  for await (const missing of missingObjects(deps, { after, last: LAST_ID, listed: [] }))
    yield { missing, present: 0 };
}

async function countIndexed(sql: Sql, ids: string[]): Promise<number> {
  const [row] = await retryOutages(
    async () =>
      await sql<[{ count: number }]>`
      select count(*)::integer as count from segments where id = any(${ids}) and not deleted`,
  );
  return row.count;
}
