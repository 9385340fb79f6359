import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { pino } from "pino";

import { type Sql, openDatabase } from "../../src/platform/database.ts";
import { WorkerNumber } from "../../src/sessions/worker-number.ts";
import { eventually } from "../support/eventually.ts";
import { freshDatabase } from "../support/postgres.ts";

const LOG = pino({ level: "silent" });

let sql: Sql;

beforeAll(async () => {
  sql = openDatabase(await freshDatabase(), { connections: 8 });
});

afterAll(async () => {
  await sql.end();
});

beforeEach(async () => {
  await sql`truncate session_worker_leases`;
});

test("processes that begin at once have different numbers", async () => {
  const workers = await Promise.all(Array.from({ length: 40 }, () => WorkerNumber.lease(sql, LOG)));
  const numbers = workers.map(({ current }) => current);
  expect(new Set(numbers).size).toBe(40);
  for (const number of numbers) expect(number >= 0 && number < 65_536).toBe(true);
  for (const worker of workers) worker[Symbol.dispose]();
});

test("when the numbers begin anew those in use are passed over, and those that were left are not", async () => {
  using first = await WorkerNumber.lease(sql, LOG);
  using second = await WorkerNumber.lease(sql, LOG);
  const left = await WorkerNumber.lease(sql, LOG);
  const number = left.current;
  left[Symbol.dispose]();
  await eventually("it is free", async () => {
    const [row] =
      await sql`select 1 from session_worker_leases where number = ${number} and leased_until <= now()`;
    return row !== undefined;
  });
  await sql`select setval('session_workers', ${first.current}, false)`;
  using next = await WorkerNumber.lease(sql, LOG);
  expect(second.current).toBe(first.current + 1);
  expect(next.current).toBe(number);
});

test("the number of a process that died is free once its lease is over", async () => {
  using dead = await WorkerNumber.lease(sql, LOG);
  await sql`update session_worker_leases set leased_until = now() - interval '1 second'`;
  await sql`select setval('session_workers', ${dead.current}, false)`;
  using next = await WorkerNumber.lease(sql, LOG);
  expect(next.current).toBe(dead.current);
});
