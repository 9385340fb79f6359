import { afterEach, describe, expect, setDefaultTimeout, setSystemTime, test } from "bun:test";
import { indexSegment } from "../../../src/log/segment-index.ts";
import { segmentKey } from "../../../src/log/segment.ts";
import { TestApp, type TestSession } from "../../support/app.ts";
import { aBatch } from "../../support/batches.ts";
import { eventually } from "../../support/eventually.ts";
import { indexState } from "../../support/index-state.ts";
import { ingestTables } from "../../support/ingest-tables.ts";
import { MAIN } from "../../support/program.ts";
import { putSegment } from "../../support/made-segment.ts";
import {
  NOTHING,
  NO_GRACE,
  batch,
  chunk,
  keysOf,
  orphansOf,
  stateOf,
} from "../../support/orphans.ts";
import { append, serverBeside, statusOf } from "../../support/requests.ts";
import { ServerProcess, envOf } from "../../support/server-process.ts";

// The first run on a machine may install the S3 server.
setDefaultTimeout(120_000);

const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;

afterEach(() => {
  setSystemTime();
});

describe.each(["files", "s3"] as const)("after a crash between PUT and row, on %s", (store) => {
  test("what nobody sent again is adopted once the grace is over, and read", async () => {
    await using app = await TestApp.start({ store });
    const session = await app.aSession();
    await dieAfterPut(app, session, aBatch({ salt: "lost" }));
    expect(await orphansOf(app).look()).toEqual(NOTHING);
    expect(await app.batches(session)).toEqual([]);
    const orphans = orphansOf(app, NO_GRACE);
    expect(await orphans.look()).toEqual({ ...NOTHING, adopted: 1 });
    expect(await app.batches(session)).toEqual([aBatch({ salt: "lost" })]);
    expect(await indexState(app.sql, app.objects)).toMatchObject({ orphans: [], missing: [] });
    expect(await orphans.look()).toEqual(NOTHING);
  });

  test("what was sent again is deleted, its row before", async () => {
    await using app = await TestApp.start({ store });
    const session = await app.aSession();
    await dieAfterPut(app, session, aBatch());
    const [orphan = ""] = (await stateOf(app)).orphans;
    expect((await app.append(session, aBatch())).status).toBe(200);
    const before = await ingestTables(app.sql);
    expect(await orphansOf(app, NO_GRACE).look()).toEqual({ ...NOTHING, deleted: 1 });
    expect(await keysOf(app)).not.toContain(orphan);
    const after = await ingestTables(app.sql);
    expect(after).toMatchObject({ batches: [...before.batches], sessions: [...before.sessions] });
    const [tombstone] = await app.sql<{ id: string }[]>`select id from segments where deleted`;
    expect(segmentKey(tombstone?.id ?? "")).toBe(orphan);
    expect(await app.batches(session)).toEqual([aBatch()]);
  });
});

describe("the grace", () => {
  test("is ten minutes of the segment's id, by the clock of PostgreSQL", async () => {
    await using app = await TestApp.start();
    const session = await app.aSession();
    const young = await putSegment(app.objects, [batch(session, "young")], {
      ageMs: 9 * MINUTE_MS,
    });
    await putSegment(app.objects, [batch(session, "old")], { ageMs: 11 * MINUTE_MS });
    setSystemTime(Date.now() + DAY_MS);
    expect(await orphansOf(app).look()).toEqual({ ...NOTHING, adopted: 1 });
    setSystemTime(Date.now() - 2 * DAY_MS);
    expect(await orphansOf(app).look()).toEqual(NOTHING);
    setSystemTime();
    expect((await stateOf(app)).orphans).toEqual([young.key]);
    expect(await app.batches(session)).toEqual([aBatch({ salt: "old" })]);
  });

  test("over, a process that sends campaigns adopts it", async () => {
    await using app = await TestApp.start();
    const session = await app.aSession();
    await putSegment(app.objects, [batch(session, "old")], { ageMs: 11 * MINUTE_MS });
    await using worker = await ServerProcess.start(envOf(app), [MAIN, "work"]);
    await eventually("it is adopted", async () => (await stateOf(app)).orphans.length === 0);
    expect(await app.batches(session)).toEqual([aBatch({ salt: "old" })]);
    worker.signal("SIGTERM");
    expect(await worker.exited).toBe(0);
  });
});

describe("a writer that was frozen before it came to index its segment", () => {
  test("answers 503 when it was deleted", async () => {
    await using app = await TestApp.start();
    const session = await app.aSession();
    await app.append(session, aBatch());
    const { answer, thaw } = await sendFrozen(app, session, aBatch());
    expect(await orphansOf(app, NO_GRACE).look()).toEqual({ ...NOTHING, deleted: 1 });
    expect(await thaw()).toBe(503);
    expect(await answer).toBe(503);
    expect(await app.batches(session)).toEqual([aBatch()]);
    expect((await stateOf(app)).orphans).toEqual([]);
  });

  test("answers 200 when it was adopted", async () => {
    await using app = await TestApp.start();
    const session = await app.aSession();
    const { thaw } = await sendFrozen(app, session, aBatch());
    expect(await orphansOf(app, NO_GRACE).look()).toEqual({ ...NOTHING, adopted: 1 });
    expect(await thaw()).toBe(200);
    expect(await app.batches(session)).toEqual([aBatch()]);
  });

  test("and stored it once more after that leaves nothing in the store", async () => {
    await using app = await TestApp.start();
    const session = await app.aSession();
    await app.append(session, aBatch());
    const { id, key } = await putSegment(app.objects, [batch(session)]);
    const orphans = orphansOf(app, NO_GRACE);
    expect(await orphans.look()).toEqual({ ...NOTHING, deleted: 1 });
    await putSegment(app.objects, [batch(session)], { id });
    expect(await orphans.look()).toEqual({ ...NOTHING, deleted: 1 });
    expect(await keysOf(app)).not.toContain(key);
  });
});

describe("chunks that no image refers to", () => {
  test("are kept for a day, and then deleted", async () => {
    await using app = await TestApp.start();
    const session = await app.aSession();
    const young = await putSegment(app.objects, [chunk(session)], { ageMs: DAY_MS - MINUTE_MS });
    const old = await putSegment(app.objects, [chunk(session)], { ageMs: DAY_MS + MINUTE_MS });
    expect(await orphansOf(app).look()).toMatchObject({ deleted: 1 });
    expect((await stateOf(app)).orphans).toEqual([young.key]);
    expect(await keysOf(app)).not.toContain(old.key);
  });

  test("stay when what could refer to them cannot be read", async () => {
    await using app = await TestApp.start();
    const session = await app.aSession();
    const { key } = await putSegment(app.objects, [chunk(session)], { ageMs: 2 * DAY_MS });
    const other = await putSegment(app.objects, [chunk(session)], { ageMs: DAY_MS });
    await app.objects.remove(other.key);
    await app.objects.put(other.key, Buffer.from("damaged"));
    expect(await orphansOf(app, { passMs: 0 }).look()).toMatchObject({ deleted: 0, damaged: 1 });
    expect((await stateOf(app)).orphans).toEqual([key, other.key]);
  });
});

test("the change of a project that nobody heard of does not undo a later one", async () => {
  await using app = await TestApp.start();
  const [row] = (await ingestTables(app.sql)).projects;
  const change = { ...row?.["row"], sample_rate: 5 };
  const at = new Date(Date.now() - 20 * MINUTE_MS).toISOString();
  await app.sql`update projects set sample_rate = 50, changed_at = now() where id = ${app.project.id}`;
  const body = { ...change, created_at: at, changed_at: at };
  await app.sql`update projects set created_at = now() - interval '1 day'`;
  await putSegment(app.objects, [{ kind: "project", sessionID: "0", body }], {
    ageMs: 20 * MINUTE_MS,
  });
  expect(await orphansOf(app).look()).toEqual({ ...NOTHING, adopted: 1 });
  const [after] = await app.sql<{ rate: number }[]>`select sample_rate as rate from projects`;
  expect(after?.rate).toBe(50);
});

test("older ones than the first look goes back are found by the slow pass, a few at a time", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  const salts = ["5", "4", "3", "2", "1"];
  for (const salt of salts)
    await putSegment(app.objects, [batch(session, salt)], { ageMs: Number(salt) * 5 * DAY_MS });
  const orphans = orphansOf(app, { passObjects: 2 });
  const adopted = [];
  for (let look = 0; look < 4; look++) adopted.push((await orphans.look()).adopted);
  expect(adopted).toEqual([2, 2, 1, 0]);
  expect(await app.batches(session)).toEqual(salts.map((salt) => aBatch({ salt })));
});

test("two processes that look at once adopt and delete each orphan once", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  await app.append(session, aBatch());
  for (let nth = 0; nth < 40; nth++) {
    const ageMs = 11 * MINUTE_MS + nth;
    await putSegment(app.objects, [batch(session, nth % 2 === 0 ? `${nth}` : "")], { ageMs });
  }
  const looks = await Promise.all([orphansOf(app).look(), orphansOf(app).look()]);
  expect(looks[0].adopted + looks[1].adopted).toBe(20);
  expect(looks.map(({ kept, damaged }) => kept + damaged)).toEqual([0, 0]);
  const { orphans, missing, batches, distinct } = await stateOf(app);
  expect({ orphans, missing, batches, distinct }).toEqual({
    orphans: [],
    missing: [],
    batches: 21,
    distinct: 21,
  });
  const [row] = await app.sql<{ count: number }[]>`
    select count(*)::integer as count from segments where deleted`;
  expect(row?.count).toBe(20);
  expect(await app.batches(session)).toHaveLength(21);
});

/** Sends a batch to a server that dies when it is stored and not indexed. */
async function dieAfterPut(app: TestApp, session: TestSession, body: Uint8Array): Promise<void> {
  const env = { ...envOf(app), DIE_AT: "after-put", DIE_ON: "1" };
  await using dying = await ServerProcess.start(env, ["test/support/serve-and-die.ts"]);
  expect(await statusOf(append(dying, session, body))).toBe("no answer");
  await dying.exited;
  expect((await stateOf(app)).orphans).toHaveLength(1);
}

/** Sends a batch to a server that stores it and comes to index it when it is thawed. */
async function sendFrozen(app: TestApp, session: TestSession, body: Uint8Array) {
  const gate = Promise.withResolvers<void>();
  const server = await serverBeside(app, {
    index: async (sql, segment) => {
      await gate.promise;
      return await indexSegment(sql, segment);
    },
  });
  const answer = statusOf(append(server, session, body));
  await eventually("it is stored", async () => (await stateOf(app)).orphans.length === 1);
  const thaw = async () => {
    gate.resolve();
    const status = await answer;
    await server[Symbol.asyncDispose]();
    return status;
  };
  return { answer, thaw };
}
