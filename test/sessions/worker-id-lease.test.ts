import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { pino } from "pino";

import { type Sql, openDatabase } from "../../src/platform/database/database.ts";
import { startServices } from "../../src/platform/lifecycle.ts";
import { WorkerIdLease } from "../../src/sessions/worker-id-lease.ts";
import { objectOf } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { eventually } from "../support/eventually.ts";
import { freshDatabase } from "../support/postgres.ts";
import { serverBeside } from "../support/requests.ts";

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

/** Leases a number, and renews the lease until it is disposed. */
async function lease(): Promise<AsyncDisposable & Pick<WorkerIdLease, "current">> {
  const owner = new AsyncDisposableStack();
  const worker = new WorkerIdLease(sql, LOG);
  await startServices(owner, [worker]);
  return {
    get current() {
      return worker.current;
    },
    [Symbol.asyncDispose]: async () => await owner.disposeAsync(),
  };
}

test("processes that begin at once have different numbers", async () => {
  const workers = await Promise.all(Array.from({ length: 40 }, lease));
  const numbers = workers.map(({ current }) => current);
  expect(new Set(numbers).size).toBe(40);
  for (const number of numbers) expect(number >= 0 && number < 65_536).toBe(true);
  for (const worker of workers) await worker[Symbol.asyncDispose]();
});

test("numbers that others have are passed over", async () => {
  await leaseOthers("n % 2 = 0", 60);
  const workers = await Promise.all(Array.from({ length: 40 }, lease));
  for (const { current } of workers) expect(current % 2).toBe(1);
  for (const worker of workers) await worker[Symbol.asyncDispose]();
});

test("the number of a process that died is free once its lease is over", async () => {
  await leaseOthers("true", -1);
  await using next = await lease();
  const [row] =
    await sql`select 1 from session_worker_leases where number = ${next.current} and leased_until > now()`;
  expect(row).toBeDefined();
});

test("a database that has forgotten the leases learns within seconds who has which number", async () => {
  await using first = await lease();
  await using second = await lease();
  const numbers = [first.current, second.current].toSorted((a, b) => a - b);
  await sql`truncate session_worker_leases`;
  await eventually("both have told it", async () => (await leased()).length === 2);
  expect(await leased()).toEqual(numbers);
  expect([first.current, second.current].toSorted((a, b) => a - b)).toEqual(numbers);
});

test("a process whose number another one has got meanwhile takes another", async () => {
  await using worker = await lease();
  const number = worker.current;
  await sql`update session_worker_leases set holder = ${crypto.randomUUID()}`;
  await eventually("it has another", async () => (await leased()).length === 2);
  // The answer that says so is on its way.
  await Bun.sleep(50);
  expect(await leased()).toEqual([number, worker.current].toSorted((a, b) => a - b));
  expect(worker.current).not.toBe(number);
});

test("sessions of a server that starts after the leases were lost have another number than those of one that runs on", async () => {
  await using app = await TestApp.start();
  await app.sql`truncate session_worker_leases`;
  await app.sql`alter sequence session_workers restart`;
  await using beside = await serverBeside(app);
  const start = async (url: string) => {
    const body = JSON.stringify({ projectID: app.projectID, trackerVersion: "1.0.14" });
    const { sessionID } = await objectOf(fetch(`${url}/v1/ios/start`, { method: "POST", body }));
    return (BigInt(String(sessionID)) >> 8n) & 0xffffn;
  };
  expect(await start(app.url)).not.toBe(await start(beside.url));
});

/** Leases of processes that are elsewhere, of these numbers n and for so long. */
async function leaseOthers(which: string, seconds: number): Promise<void> {
  await sql`
    insert into session_worker_leases
    select n, gen_random_uuid(), now() + ${seconds} * interval '1 second'
    from generate_series(0, 65535) as n where ${sql.unsafe(which)}`;
}

async function leased(): Promise<number[]> {
  const rows = await sql<{ number: number }[]>`
    select number from session_worker_leases order by number`;
  return rows.map(({ number }) => number);
}
