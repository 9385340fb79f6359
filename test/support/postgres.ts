import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { openDatabase } from "../../src/platform/database/database.ts";
import {
  type EmbeddedPostgres,
  startEmbeddedPostgres,
} from "../../src/platform/database/embedded-postgres.ts";
import { migrate } from "../../src/platform/database/migrate.ts";

let running: Promise<EmbeddedPostgres> | undefined;
const folder = mkdtempSync(join(tmpdir(), "floodgate-test-"));

/** Returns the server that all tests of a run share. */
export async function testPostgres(): Promise<EmbeddedPostgres> {
  running ??= startEmbeddedPostgres(folder);
  return await running;
}

/** Creates an empty, migrated schema and returns its URL. */
export async function freshDatabase(): Promise<string> {
  const { url } = await testPostgres();
  const schema = `t_${crypto.randomUUID().replaceAll("-", "")}`;
  const admin = openDatabase(url, { connections: 1 });
  await admin`create schema ${admin(schema)}`;
  await admin.end();
  const databaseUrl = `${url}?search_path=${schema}`;
  // No statement timeout: concurrent tests wait for one another's migrations.
  const sql = openDatabase(databaseUrl, { connections: 1, unbounded: true });
  await migrate(sql);
  await sql.end();
  return databaseUrl;
}

export async function stopTestPostgres(): Promise<void> {
  if (running !== undefined) await (await running)[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
}
