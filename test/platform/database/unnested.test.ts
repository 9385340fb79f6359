import { afterAll, beforeAll, expect, test } from "bun:test";

import * as fc from "fast-check";

import { type Sql, openDatabase } from "../../../src/platform/database/database.ts";
import { unnested } from "../../../src/platform/database/unnested.ts";
import { testPostgres } from "../../support/postgres.ts";

const TYPES = { word: "text", number: "bigint", flag: "boolean", words: "text" };

let sql: Sql;

beforeAll(async () => {
  sql = openDatabase((await testPostgres()).url, { connections: 1 });
});

afterAll(async () => {
  await sql.end();
});

// PostgreSQL has no NUL in texts.
const word = fc
  .oneof(
    fc.string({ unit: "binary", maxLength: 20 }),
    fc.constantFrom("", "NULL", "null", '"', "\\", '\\"', "{a,b}", "a, b", " a ", "'", "$1"),
  )
  .map((text) => text.replaceAll("\0", ""));
const row = fc.record({
  word: fc.option(word),
  number: fc.option(fc.maxSafeInteger()),
  flag: fc.option(fc.boolean()),
  words: fc.array(word, { maxLength: 4 }),
});

test("rows of any texts, numbers, lists and nulls arrive as they were, in their order", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(row, { maxLength: 8 }), async (rows) => {
      const arrived = await sql`
        select word, number::float8 as number, flag, words::text[] as words
        from ${unnested(sql, rows, TYPES)}`;
      expect(Array.from(arrived)).toEqual(rows);
    }),
    { numRuns: 200 },
  );
});
