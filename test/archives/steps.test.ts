import { describe, expect, test } from "bun:test";

import { type Moment } from "../../src/archives/archiver.ts";
import { segmentIdOf } from "../../src/log/segment.ts";
import { openDatabase } from "../../src/platform/database/database.ts";
import { type ObjectStore } from "../../src/platform/objects/objects.ts";
import { WrappedObjects } from "../../src/platform/objects/wrapped-objects.ts";
import { TestApp, type TestSession } from "../support/app.ts";
import {
  archiveAll,
  archiveKeys,
  archiveRows,
  archivedOf,
  archiverOf,
  batchRows,
  endLeases,
  sweep,
  toBytes,
} from "../support/archives.ts";
import { failure } from "../support/failure.ts";
import { sessionFacts } from "../support/ingest-tables.ts";
import { envOf } from "../support/server-process.ts";
import { TcpProxy } from "../support/tcp-proxy.ts";
import { batch, sendBatches } from "../support/verified.ts";

const BATCHES = [0, 1, 2];
const MOMENTS = ["leased", "read", "written", "swapping", "swapped"] as const;

class Killed extends Error {}

async function aRecorded(app: TestApp): Promise<TestSession> {
  const session = await app.aSession();
  await sendBatches(app, session, ...BATCHES);
  await sessionFacts(app.sql);
  return session;
}

/** Expects each batch to be in an archive once, and nothing to be left of steps that failed. */
async function expectArchivedOnce(app: TestApp, session: TestSession): Promise<void> {
  expect(toBytes(await archivedOf(app, session))).toEqual(BATCHES.map(batch));
  expect(await batchRows(app)).toBe(0);
  await endLeases(app);
  await sweep(app);
  expect(await archiveKeys(app)).toEqual(await archiveRows(app));
  expect(await app.sql`select from object_garbage`).toHaveLength(0);
}

/** Runs a step up to that moment, at which it stops until `thaw` is called. */
function frozenAt(app: TestApp, moment: Moment) {
  const reached = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  const at = async (now: Moment) => {
    if (now !== moment) return;
    reached.resolve();
    await gate.promise;
  };
  const sql = openDatabase(app.databaseUrl, { connections: 4 });
  const ended = archiverOf({ objects: app.objects, sql }, { at })
    .step()
    .then(
      () => "archived",
      (error: unknown) => (error instanceof Error ? error.name : error),
    );
  const thaw = async () => {
    gate.resolve();
    const outcome = await ended;
    await sql[Symbol.asyncDispose]();
    return outcome;
  };
  return { reached: reached.promise, thaw };
}

describe.each(MOMENTS)("a step that ends when it has %s", (moment) => {
  test("by an error leaves nothing, and the next one archives each batch once", async () => {
    await using app = await TestApp.start();
    const session = await aRecorded(app);
    const at = (now: Moment) => {
      if (now === moment) throw new Killed();
    };
    expect(await failure(archiverOf(app, { at }).step())).toBeInstanceOf(Killed);
    const isDone = moment === "swapped";
    expect(await batchRows(app)).toBe(isDone ? 0 : BATCHES.length);
    expect(await archiveKeys(app)).toEqual(await archiveRows(app));
    expect(await archiveRows(app)).toHaveLength(isDone ? 2 : 0);
    await app.sql`update segments set leased_until = null`;
    await archiveAll(app);
    await expectArchivedOnce(app, session);
  });

  test("because its process is killed is done again once its leases are over", async () => {
    await using app = await TestApp.start();
    const session = await aRecorded(app);
    const dying = Bun.spawn([process.execPath, "test/support/archive-and-die.ts"], {
      env: { ...process.env, ...envOf(app), DIE_AT: moment },
    });
    await dying.exited;
    expect(dying.signalCode).toBe("SIGKILL");
    expect(await batchRows(app)).toBe(moment === "swapped" ? 0 : BATCHES.length);
    await endLeases(app);
    await archiveAll(app);
    await expectArchivedOnce(app, session);
  });

  test("because its process is frozen is done by another one, and leaves nothing when it thaws", async () => {
    await using app = await TestApp.start();
    const session = await aRecorded(app);
    const killed = frozenAt(app, moment);
    await killed.reached;
    // PostgreSQL ends a transaction that idles for long.
    if (moment === "swapping") await endTransactions(app);
    await endLeases(app);
    await archiveAll(app);
    await sweep(app);
    await expectArchivedOnce(app, session);
    // It was only frozen, and comes back.
    const outcome = await killed.thaw();
    expect([outcome, outcome === "archived"]).toEqual([expect.any(String), moment === "swapped"]);
    await archiveAll(app);
    await expectArchivedOnce(app, session);
  });
});

/** Ends the transactions of other processes on the app's database that wait for their client. */
async function endTransactions({ sql }: TestApp): Promise<void> {
  await sql`
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and state = 'idle in transaction' and pid in (
      select pid from pg_locks join pg_class on pg_class.oid = relation
      where relnamespace = current_schema()::regnamespace and relname = 'segments'
    )`;
}

test("of two archivers whose leases overlap one archives, and the other leaves nothing", async () => {
  await using app = await TestApp.start();
  const session = await aRecorded(app);
  const frozen = frozenAt(app, "written");
  await frozen.reached;
  await app.sql`update segments set leased_until = null`;
  await archiveAll(app);
  expect(await batchRows(app)).toBe(0);
  expect(await archiveKeys(app)).toHaveLength(4);
  expect(await frozen.thaw()).toBe("Overtaken");
  expect(await archiveKeys(app)).toEqual(await archiveRows(app));
  await expectArchivedOnce(app, session);
});

test("a step that paused until its objects were deleted does not commit rows for them", async () => {
  await using app = await TestApp.start();
  const session = await aRecorded(app);
  const frozen = frozenAt(app, "written");
  await frozen.reached;
  await app.sql`update object_garbage set due_at = now()`;
  await sweep(app);
  expect(await archiveKeys(app)).toEqual([]);
  expect(await frozen.thaw()).toBe("Swept");
  expect(await batchRows(app)).toBe(BATCHES.length);
  await endLeases(app);
  await archiveAll(app);
  await expectArchivedOnce(app, session);
});

test("many archivers at once archive each batch once", async () => {
  await using app = await TestApp.start();
  const session = await aRecorded(app);
  await Promise.all(Array.from({ length: 4 }, async () => await archiveAll(app)));
  await expectArchivedOnce(app, session);
});

test.each([[[]], [[7, 8]]])(
  "a session with batches %p that is deleted between reading and swapping is in no archive",
  async (numbers) => {
    await using app = await TestApp.start();
    const kept = await aRecorded(app);
    const erased = await app.aSession();
    await sendBatches(app, erased, ...numbers);
    await sessionFacts(app.sql);
    const frozen = frozenAt(app, "written");
    await frozen.reached;
    await app.sql`delete from batches where session_id = ${erased.sessionID}`;
    await app.sql`delete from sessions where id = ${erased.sessionID}`;
    expect(await frozen.thaw()).toBe("Overtaken");
    expect(await archiveKeys(app)).toEqual([]);
    await endLeases(app);
    await archiveAll(app);
    expect(await archivedOf(app, erased)).toMatchObject({ rows: [], batches: [] });
    await expectArchivedOnce(app, kept);
  },
);

test("a batch whose row names another copy when it comes to swapping is archived from there", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  const [, key = ""] = await sendBatches(app, session, ...BATCHES);
  await sessionFacts(app.sql);
  const frozen = frozenAt(app, "written");
  await frozen.reached;
  await app.sql`insert into unreadable_segments (segment_id) values (${segmentIdOf(key) ?? ""})`;
  await sendBatches(app, session, 1);
  expect(await frozen.thaw()).toBe("Overtaken");
  expect(await archiveRows(app)).toEqual([]);
  await endLeases(app);
  await archiveAll(app);
  expect(toBytes(await archivedOf(app, session))).toEqual([0, 2, 1].map(batch));
  expect(await batchRows(app)).toBe(0);
});

test("a store that refuses an archive leaves everything as it is, until it takes it", async () => {
  await using app = await TestApp.start();
  const session = await aRecorded(app);
  const refusing = new Refusing(app.objects);
  expect(await failure(archiverOf(app, { objects: refusing }).step())).toEqual(
    new Error("refused"),
  );
  expect(await batchRows(app)).toBe(BATCHES.length);
  expect(await archiveKeys(app)).toEqual([]);
  await endLeases(app);
  await archiveAll(app);
  await expectArchivedOnce(app, session);
});

test("a database that goes away between the objects and the rows costs nothing but the step", async () => {
  await using app = await TestApp.start();
  const session = await aRecorded(app);
  await using proxy = await TcpProxy.open(app.databaseUrl);
  await using sql = openDatabase(proxy.urlOf(app.databaseUrl), { connections: 4 });
  const at = async (now: Moment) => {
    if (now === "written") await proxy.refuse();
  };
  const step = archiverOf({ objects: app.objects, sql }, { at }).step();
  expect(await failure(step)).toBeInstanceOf(Error);
  expect(await archiveKeys(app)).toHaveLength(2);
  expect(await archiveRows(app)).toEqual([]);
  await proxy.restore();
  await endLeases(app);
  await sweep(app);
  expect(await archiveKeys(app)).toEqual([]);
  await archiveAll(app);
  await expectArchivedOnce(app, session);
});

test("a commit whose answer is lost is found to have succeeded", async () => {
  await using app = await TestApp.start();
  const session = await aRecorded(app);
  await using proxy = await TcpProxy.open(app.databaseUrl);
  await using sql = openDatabase(proxy.urlOf(app.databaseUrl), { connections: 4 });
  const at = (now: Moment) => {
    if (now === "swapping") proxy.loseAnswerTo("commit");
  };
  const step = archiverOf({ objects: app.objects, sql }, { at }).step();
  expect(await failure(step)).toBeInstanceOf(Error);
  expect(proxy.lost).toBe(1);
  await expectArchivedOnce(app, session);
});

class Refusing extends WrappedObjects {
  override async upload(...args: Parameters<ObjectStore["upload"]>): Promise<void> {
    const [key] = args;
    if (key.includes("/0/")) await super.upload(...args);
    throw new Error("refused");
  }
}
