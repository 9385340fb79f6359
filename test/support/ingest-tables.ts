import { pino } from "pino";

import { Reindex, type Reindexed } from "../../src/log/reindex.ts";
import { type Sql } from "../../src/platform/database/database.ts";
import { metric } from "./answers.ts";
import { type TestApp } from "./app.ts";
import { eventually } from "./eventually.ts";

/** Returns all rows of ingest as JSON, except for times that a rebuild cannot restore. */
export async function ingestTables(sql: Sql) {
  return {
    projects: await sql`select to_jsonb(p) as row from projects p order by id`,
    sessions: await sql`select to_jsonb(s) as row from sessions s order by id`,
    segments: await sql`select to_jsonb(s) - 'created_at' as row from segments s order by id`,
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

/** Empties the tables, like those of a new database. */
export async function emptyTables(sql: Sql): Promise<void> {
  await sql`truncate projects, sessions, segments, batches, images, image_contents, image_uses, unreadable_segments restart identity`;
}

export async function reindex({
  sql,
  objects,
}: Pick<TestApp, "sql" | "objects">): Promise<Reindexed> {
  return await new Reindex({ sql, objects, log: pino({ level: "silent" }) }).run();
}
