import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { openDatabase } from "../../src/platform/database/database.ts";
import {
  type EmbeddedPostgres,
  startEmbeddedPostgres,
} from "../../src/platform/database/embedded-postgres.ts";
import { migrate } from "../../src/platform/database/migrate.ts";

let running: Promise<EmbeddedPostgres> | undefined;

/** Returns the server that all tests of a process share. */
export async function testPostgres(): Promise<EmbeddedPostgres> {
  running ??= start(mkdtempSync(join(tmpdir(), "floodgate-test-")));
  return await running;
}

/** Starts a server for many servers at once, which need not outlive the machine. */
async function start(folder: string): Promise<EmbeddedPostgres> {
  const unconfigured = await startEmbeddedPostgres(folder);
  const sql = openDatabase(unconfigured.url, { connections: 1 });
  await sql`alter system set max_connections = 400`;
  await sql`alter system set fsync = off`;
  await sql.end();
  await unconfigured[Symbol.asyncDispose]();
  return await startEmbeddedPostgres(folder);
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
