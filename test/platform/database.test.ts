import { expect, test } from "bun:test";

import { openDatabase } from "../../src/platform/database.ts";
import { failure } from "../support/failure.ts";
import { freshDatabase } from "../support/postgres.ts";

test("a transaction whose connection dies is refused, and the pool goes on", async () => {
  const url = await freshDatabase();
  const sql = openDatabase(url, { connections: 2 });
  const other = openDatabase(url, { connections: 1 });
  for (let round = 0; round < 10; round++) {
    const dying = failure(
      sql.begin(async (transaction) => {
        const [own] = await transaction<[{ pid: number }]>`select pg_backend_pid() as pid`;
        const ending = other`select pg_sleep(0.05), pg_terminate_backend(${own.pid})`;
        await Promise.all([transaction`select pg_sleep(5)`, ending]);
      }),
    );
    expect(await dying).toBeInstanceOf(Error);
    const [row] = await sql<[{ one: number }]>`select 1 as one`;
    expect(row.one).toBe(1);
  }
  await sql.end({ timeout: 1 });
  await other.end({ timeout: 1 });
}, 20_000);
