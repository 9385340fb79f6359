import { afterAll, beforeAll, expect, test } from "bun:test";

import { ContentLookup } from "../../src/images/content-lookup.ts";
import { type Sql, openDatabase } from "../../src/platform/database/database.ts";
import { freshDatabase } from "../support/postgres.ts";
import { sha256Of } from "../support/images.ts";

// Enough that PostgreSQL would rather read the whole table once than look up a hundred files.
const STORED = 2000;

let sql: Sql;

beforeAll(async () => {
  sql = openDatabase(await freshDatabase(), { connections: 2 });
  await sql`
    insert into image_contents (project_id, name, sha256, kind, content_type, bytes, crc32, uses, stored_at,
      chunk_segments, chunk_offsets, chunk_lengths)
    select 1, 'image ' || n, sha256(('bytes ' || n)::bytea), 'image', 'image/png', 10, 1, 1, now(), '{}', '{}', '{}'
    from generate_series(1, ${STORED}) as n`;
});

afterAll(async () => {
  await sql.end();
});

function digestOf(text: string) {
  return { bytes: text.length, crc32: 1, sha256: sha256Of(text) };
}

test("a file is known by name and bytes, and others of its name are told from it", async () => {
  const contents = new ContentLookup(sql);
  const found = await Promise.all([
    contents.find(1, "image 7", digestOf("bytes 7")),
    contents.find(1, "image 7", digestOf("bytes 8")),
    contents.find(1, "image 0", digestOf("bytes 7")),
    contents.find(2, "image 7", digestOf("bytes 7")),
  ]);
  expect(found).toEqual([
    { known: true, others: false, maybe: false },
    { known: false, others: true, maybe: false },
    { known: false, others: false, maybe: false },
    { known: false, others: false, maybe: false },
  ]);
});

test("looking up a few files reads no whole table, also before PostgreSQL has statistics", async () => {
  await sql.begin(async (transaction) => {
    await transaction`set local plan_cache_mode = force_generic_plan`;
    const contents = new ContentLookup(transaction);
    const finds = [1, 2, 3].map((n) => contents.find(1, `image ${n}`, digestOf(`bytes ${n}`)));
    expect((await Promise.all(finds)).map(({ known }) => known)).toEqual([true, true, true]);
    const [row] = await transaction<[{ rows: number }]>`
      select seq_tup_read::integer as rows from pg_stat_xact_user_tables
      where relid = 'image_contents'::regclass`;
    expect(row.rows).toBe(0);
  });
});

test("files that end while others are looked up share a query", async () => {
  let statements = 0;
  const counting = new Proxy(sql, {
    apply: (target, self, args) => {
      statements++;
      return Reflect.apply(target, self, args);
    },
  });
  const contents = new ContentLookup(counting);
  await contents.find(1, "image 1", digestOf("bytes 1"));
  // A statement and the fragments in it.
  const each = statements;
  const names = Array.from({ length: 50 }, (_, n) => n + 1);
  const find = (n: number) => contents.find(1, `image ${n}`, digestOf(`bytes ${n}`));
  const found = await Promise.all(names.map(find));
  expect(found.every(({ known }) => known)).toBe(true);
  // The first may be alone in its query.
  expect(statements).toBeLessThanOrEqual(3 * each);
});

test("a query that fails is the failure of its files alone", async () => {
  const broken = openDatabase(await freshDatabase(), { connections: 1 });
  const contents = new ContentLookup(broken);
  await broken`alter table image_contents rename to away`;
  const failing = [contents.find(1, "a", digestOf("a")), contents.find(1, "b", digestOf("b"))];
  expect((await Promise.allSettled(failing)).map(({ status }) => status)).toEqual([
    "rejected",
    "rejected",
  ]);
  await broken`alter table away rename to image_contents`;
  expect(await contents.find(1, "a", digestOf("a"))).toMatchObject({ known: false });
  await broken.end();
});
