import { pino } from "pino";

import { type ArchivesReindexed } from "../../src/archives/recovery/archive-reindex.ts";
import { reindexStore } from "../../src/archives/recovery/reindex-store.ts";
import { ReadFacts } from "../../src/ingest/read-facts.ts";
import { type Reindexed } from "../../src/log/recovery/reindex.ts";
import { type Sql } from "../../src/platform/database/database.ts";
import { metric } from "./answers.ts";
import { type TestApp } from "./app.ts";
import { eventually } from "./eventually.ts";

/** Columns of a session that are written some time after its batches. */
const FACTS = [
  "events",
  "clicks",
  "page_views",
  "errors",
  "first_at",
  "last_at",
  "received_at",
  "duration_ms",
  "labels",
  "pages",
  "dated_labels",
];

/**
 * Returns all rows of ingest as JSON, except for times that a rebuild cannot restore, and for facts
 * about sessions.
 */
export async function ingestTables(sql: Sql) {
  return {
    projects: await sql`select to_jsonb(p) as row from projects p order by id`,
    sessions: await sql`select to_jsonb(s) - ${FACTS}::text[] as row from sessions s order by id`,
    segments:
      await sql`select to_jsonb(s) - 'created_at' - 'facts_written' - 'position' as row from segments s order by id`,
    batches:
      await sql`select to_jsonb(b) as row from batches b order by session_id, segment_id, "offset"`,
    contents:
      await sql`select to_jsonb(c) as row from image_contents c order by project_id, name, sha256`,
    uses: await sql`select to_jsonb(u) as row from image_uses u order by session_id, name, sha256`,
    images: await sql`select to_jsonb(i) as row from images i order by project_id, name`,
  };
}

/** Resolves once the server holds no record that is not indexed, also of those that no request waits for. */
export async function untilIndexed(app: TestApp): Promise<void> {
  const isDone = async () => (await metric(app, "floodgate_inflight_bytes")) === 0;
  await eventually("all is indexed", isDone);
}

/** Returns the facts about all sessions, once those of all segments are written. */
export async function sessionFacts(sql: Sql) {
  await eventually("all facts are written", async () => {
    const due = await sql`select from segments where not facts_written and not deleted limit 1`;
    return due.length === 0;
  });
  const facts = FACTS.filter((name) => name !== "received_at");
  return await sql`select id::text, ${sql(facts)} from sessions order by id`;
}

/** Empties the tables, like those of a new database. */
export async function emptyTables(sql: Sql): Promise<void> {
  await sql`
    truncate projects, sessions, segments, batches, images, image_contents, image_uses, unreadable_segments,
      archives, session_pieces, object_garbage restart identity`;
}

/** Reindexes the segments, and then the archives. */
export async function reindex({
  sql,
  objects,
}: Pick<TestApp, "sql" | "objects">): Promise<Reindexed & { ofArchives: ArchivesReindexed }> {
  const log = pino({ level: "silent" });
  const notes = () => new ReadFacts(sql);
  const { segments, archives } = await reindexStore({ sql, objects, log, notes, graceS: 600 });
  return { ...segments, ofArchives: archives };
}
