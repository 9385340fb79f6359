import { copyFile, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeEach, expect, test } from "bun:test";

import { type Sql, openDatabase } from "../../../src/platform/database/database.ts";
import { UsageError } from "../../../src/platform/errors.ts";
import { migrate } from "../../../src/platform/database/migrate.ts";
import { failure } from "../../support/failure.ts";
import { testPostgres } from "../../support/postgres.ts";

let folder: string;
let sql: Sql;
const opened: Sql[] = [];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "floodgate-migrate-"));
  const { url } = await testPostgres();
  const schema = `t_${crypto.randomUUID().replaceAll("-", "")}`;
  const admin = openDatabase(url, { connections: 1 });
  await admin`create schema ${admin(schema)}`;
  await admin.end();
  sql = openDatabase(`${url}?search_path=${schema}`, { connections: 4 });
  opened.push(sql);
});

afterEach(async () => {
  await rm(folder, { recursive: true });
});

afterAll(async () => {
  await Promise.all(opened.map((one) => one.end()));
});

async function file(name: string, text: string): Promise<void> {
  await writeFile(join(folder, name), text);
}

async function tables(): Promise<string[]> {
  const rows = await sql<{ name: string }[]>`
    select table_name as name from information_schema.tables
    where table_schema = current_schema() order by table_name`;
  return rows.map(({ name }) => name);
}

test("the project's own schema is applied once, and again changes nothing", async () => {
  const applied = await migrate(sql);
  expect(applied.length).toBeGreaterThan(0);
  expect(applied).toEqual(applied.toSorted());
  const made = await tables();
  expect(made).toEqual(
    expect.arrayContaining(["batches", "images", "projects", "segments", "sessions"]),
  );
  expect(await migrate(sql)).toEqual([]);
  expect(await tables()).toEqual(made);
});

test("files are applied in order, later ones when they come", async () => {
  await file("0001_one.sql", "create table one (id integer primary key);");
  await file(
    "0002_two.sql",
    "create table two (id integer references one);\ninsert into one values (7);",
  );
  await file("README.md", "no migration");
  expect(await migrate(sql, folder)).toEqual(["0001_one.sql", "0002_two.sql"]);
  await file("0003_three.sql", "create table three as select id from one;");
  expect(await migrate(sql, folder)).toEqual(["0003_three.sql"]);
  expect(Array.from(await sql`select id from three`)).toEqual([{ id: 7 }]);
});

test("a file that was changed after it was applied is refused, and nothing else is applied", async () => {
  await file("0001_one.sql", "create table one (id integer);");
  await migrate(sql, folder);
  await file("0001_one.sql", "create table one (id bigint);");
  await file("0002_two.sql", "create table two (id integer);");
  const error = await failure(migrate(sql, folder));
  expect(error).toBeInstanceOf(UsageError);
  expect(error).toMatchObject({
    message: "sql/0001_one.sql was changed after it had been applied to this database",
  });
  expect(await tables()).toEqual(["migrations", "one"]);
});

test("a file that fails leaves the database as it was, and works once it is mended", async () => {
  await file("0001_one.sql", "create table one (id integer);");
  await file("0002_two.sql", "create table two (id integer); select no_such_function();");
  expect(await failure(migrate(sql, folder))).toMatchObject({
    message: expect.stringContaining("no_such_function"),
  });
  expect(await tables()).toEqual([]);
  await file("0002_two.sql", "create table two (id integer);");
  expect(await migrate(sql, folder)).toEqual(["0001_one.sql", "0002_two.sql"]);
});

test.each([
  ["0003_three.sql", "a gap"],
  ["0001_again.sql", "a number twice"],
  ["2_two.sql", "a short number"],
  ["0002-two.sql", "another separator"],
])("%s, which is %s, is refused before anything is applied", async (name) => {
  await file("0001_one.sql", "create table one (id integer);");
  await file(name, "create table other (id integer);");
  expect(await failure(migrate(sql, folder))).toMatchObject({
    message: expect.stringContaining("breaks the numbering"),
  });
  expect(await tables()).toEqual([]);
});

test("of several at once one applies each file, and the others find it applied", async () => {
  await file("0001_one.sql", "create table one (id integer); select pg_sleep(0.1);");
  await file("0002_two.sql", "insert into one values (1);");
  const outcomes = await Promise.all(Array.from({ length: 4 }, () => migrate(sql, folder)));
  expect(outcomes.toSorted((a, b) => a.length - b.length)).toEqual([
    [],
    [],
    [],
    ["0001_one.sql", "0002_two.sql"],
  ]);
  expect(Array.from(await sql`select id from one`)).toEqual([{ id: 1 }]);
});

test("builds of before are as old as their uploads, and those of processes of before are new", async () => {
  const own = join(import.meta.dir, "../../../sql");
  for (const name of (await readdir(own)).filter((one) => one < "0010"))
    await copyFile(join(own, name), join(folder, name));
  await migrate(sql, folder);
  const uploads = [Date.UTC(2026, 0, 2, 3, 4, 5, 678), Date.UTC(2026, 5, 6, 7, 8, 9, 10)];
  const publish = async (version: string, name: string, objectId: string) =>
    await sql`
    insert into builds (version, target_abi, name, notes, bytes, md5, sha256, object_id, skipped)
    values (${version}, 'arm64', ${name}, '', 1, '', '', ${objectId}, true)
    on conflict (version, target_abi) do nothing`;
  for (const [nth, ms] of uploads.entries())
    await publish(`${nth}_01`, "app.apk", Bun.randomUUIDv7("hex", ms));
  await migrate(sql);
  const times = async () => [
    ...(await sql<{ published: number; changed: number }[]>`
      select (extract(epoch from published_at) * 1000)::float8 as published,
        (extract(epoch from changed_at) * 1000)::float8 as changed
      from builds join build_names using (name) order by version`),
  ];
  const [first = 0, second = 0] = uploads.map((ms) => ms - (ms % 1000));
  expect(await times()).toEqual([
    { published: first, changed: second },
    { published: second, changed: second },
  ]);
  const migratedMs = Date.now() - 5000;
  await publish("0_01", "app.apk", Bun.randomUUIDv7());
  expect((await times())[0]).toEqual({ published: first, changed: second });
  await sql`update builds set object_id = ${Bun.randomUUIDv7()} where version = '0_01'`;
  await publish("2_01", "app.apk", Bun.randomUUIDv7());
  const [again, , newest] = await times();
  expect(again?.published).toBeGreaterThan(migratedMs);
  expect(newest?.published).toBeGreaterThan(again?.published ?? 0);
  expect(newest?.changed).toBe(newest?.published ?? 0);
});
