import { gzipSync } from "node:zlib";
import { describe, expect, test } from "bun:test";

import { objectOf, sessionRow } from "../support/answers.ts";
import { TestApp, type TestSession } from "../support/app.ts";
import { aBatch, encodeBatch, encodeFrame, encodeMessage } from "../support/batches.ts";
import { eventually } from "../support/eventually.ts";
import { emptyTables, reindex, sessionFacts } from "../support/ingest-tables.ts";
import { aProject } from "../support/projects.ts";
import { encodeWebBatch, encodeWebMessage } from "../support/web-batches.ts";

const AT = 1_760_000_000_000;
const WEB = "/v1/web/i";

const app = TestApp.forTests();

const MOBILE_BATCH = encodeBatch(
  [
    encodeMessage(94, AT + 1, "ada"),
    encodeMessage(95, AT + 2, "anon-1"),
    encodeMessage(92, AT + 3, "plan", "free"),
    encodeMessage(98, AT + 4, "Basket", "BasketView", true),
    encodeMessage(98, AT + 5, "Basket", "BasketView", false),
    encodeMessage(100, AT + 6, "Buy", 10, 20),
    encodeMessage(97, AT + 7, "Crash", "reason", "stack"),
    encodeMessage(92, AT + 4000, "plan", "pro"),
  ],
  { timestamp: AT },
);
const WEB_BATCH = encodeWebBatch(
  [
    encodeWebMessage(0, AT + 100),
    encodeWebMessage(122, "https://shop.example/a", "", AT, "A"),
    encodeWebMessage(28, "bob"),
    encodeWebMessage(29, "anon-2"),
    encodeWebMessage(30, "team", "red"),
    encodeWebMessage(0, AT + 2500),
    encodeWebMessage(68, 1, 2, "Buy", "button", 3, 4),
    encodeWebMessage(69, 1, 2, "Buy", "button"),
    encodeWebMessage(122, "https://shop.example/b", "", 0, "B"),
    encodeWebMessage(78, "TypeError", "x is undefined", "[]", "{}"),
  ],
  { version: 1, timestamp: AT },
);

async function send(session: TestSession, batch: Uint8Array, path?: string, headers = {}) {
  expect((await app.append(session, batch, path, headers)).status).toBe(200);
}

/** Returns the session once it has that many messages. */
async function rowWith(session: { sessionID: string }, events: number) {
  let row: Record<string, unknown> = {};
  await eventually("the facts are written", async () => {
    row = await sessionRow(app, session);
    return row["events"] === events;
  });
  return row;
}

describe("what a batch says about its session is read back with the session", () => {
  test("of a mobile SDK", async () => {
    const session = await app.aSession({ userID: "from the start" });
    expect(await sessionRow(app, session)).toMatchObject({
      userID: "from the start",
      events: 0,
      durationMs: 0,
      lastAt: null,
    });
    await send(session, MOBILE_BATCH);
    expect(await rowWith(session, 8)).toMatchObject({
      userID: "ada",
      anonymousID: "anon-1",
      metadata: { plan: "pro" },
      page: "Basket",
      pages: ["Basket"],
      pageViews: 1,
      clicks: 1,
      errors: 1,
      durationMs: 4000,
      lastAt: expect.any(String),
    });
  });

  test("of the web tracker, compressed or not", async () => {
    for (const [body, headers] of [
      [WEB_BATCH, {}],
      [gzipSync(WEB_BATCH), { "content-encoding": "gzip" }],
    ] as const) {
      const session = await app.aSession();
      await send(session, body, WEB, headers);
      expect(await rowWith(session, 10)).toMatchObject({
        userID: "bob",
        anonymousID: "anon-2",
        metadata: { team: "red" },
        pages: ["https://shop.example/a", "https://shop.example/b"],
        pageViews: 2,
        clicks: 2,
        errors: 1,
        durationMs: 2500,
      });
    }
  });

  test("also of one that is too long for one turn of the event loop", async () => {
    const session = await app.aSession();
    const clicks = Array.from({ length: 30_000 }, (_, at) =>
      encodeMessage(100, AT + at, "Buy", 10, 20),
    );
    await send(session, encodeBatch(clicks, { timestamp: AT }));
    expect(await rowWith(session, 30_000)).toMatchObject({ clicks: 30_000, durationMs: 29_999 });
  });

  test("of a label whose message is malformed only the count", async () => {
    const session = await app.aSession();
    await send(
      session,
      encodeBatch([
        encodeFrame(94, AT, Uint8Array.of(9, 65)),
        encodeFrame(92, AT, Uint8Array.of(1, 65)),
        encodeFrame(98, AT, Uint8Array.of(200)),
      ]),
    );
    expect(await rowWith(session, 3)).toMatchObject({
      userID: null,
      metadata: {},
      pages: [],
      pageViews: 0,
    });
  });
});

test("batches in any order say the same, and each once", async () => {
  const batches = [1, 2, 3].map((nth) =>
    encodeBatch([
      encodeMessage(94, AT + nth * 1000, `user ${nth}`),
      encodeMessage(92, AT + nth * 1000, "nth", `${nth}`),
      encodeMessage(98, AT + nth * 1000, `Screen ${nth}`, "View", true),
    ]),
  );
  const [forward, backward] = [await app.aSession(), await app.aSession()];
  for (const batch of batches) await send(forward, batch);
  await rowWith(forward, 9);
  for (const batch of batches.toReversed()) {
    await send(backward, batch);
    await send(backward, batch);
  }
  // A batch that is known to be written after all of these.
  const row = await rowWith(backward, 9);
  expect(row).toMatchObject({
    userID: "user 3",
    metadata: { nth: "3" },
    pages: ["Screen 1", "Screen 2", "Screen 3"],
    durationMs: 3000,
  });
  await Promise.all(batches.map(async (batch) => await send(forward, batch)));
  await Promise.all(
    [1, 2].map(async () => await send(forward, aBatch({ messages: 5, salt: "new" }))),
  );
  expect((await rowWith(forward, 14))["pages"]).toEqual(row["pages"]);
});

test("a quarantined batch says nothing, and counts as data", async () => {
  const session = await app.aSession();
  await send(session, MOBILE_BATCH.subarray(0, -1));
  await eventually(
    "it was received",
    async () => (await sessionRow(app, session))["lastAt"] !== null,
  );
  expect(await sessionRow(app, session)).toMatchObject({ events: 0, userID: null, durationMs: 0 });
});

test("a session is no longer than data came in of it, whatever the clock of its client says", async () => {
  const session = await app.aSession();
  await send(session, encodeBatch([encodeMessage(100, 5, "Buy", 1, 2)], { timestamp: AT }));
  const { durationMs } = await rowWith(session, 1);
  expect(durationMs).toBeLessThan(10 * 60_000);
});

async function idsOf(projectId: number, filter: Record<string, string>): Promise<string[]> {
  const query = new URLSearchParams({ projectId: String(projectId), ...filter });
  const { sessions } = await objectOf(app.fetch(`/v1/sessions?${query.toString()}`));
  if (!Array.isArray(sessions)) throw new Error("no list");
  return sessions.map(({ sessionID }) => sessionID);
}

describe("sessions are found", () => {
  test("by all that their batches say", async () => {
    const { id, projectID } = await aProject(app);
    const mobile = await app.aSession({ projectID, userID: "eve" });
    const web = await app.aSession({ projectID });
    const none = await app.aSession({ projectID });
    await send(mobile, MOBILE_BATCH);
    await send(web, WEB_BATCH, WEB);
    await rowWith(mobile, 8);
    await rowWith(web, 10);
    const find = async (filter: Record<string, string>) => await idsOf(id, filter);
    for (const [filter, found] of [
      [{ userID: "ada" }, mobile],
      [{ userID: "eve" }, mobile],
      [{ userID: "bob" }, web],
      [{ anonymousID: "anon-2" }, web],
      [{ "metadata[plan]": "pro" }, mobile],
      [{ "metadata[team]": "red", userID: "bob" }, web],
      [{ page: "https://shop.example/" }, web],
      [{ page: "https://shop.example/b" }, web],
      [{ page: "Bask" }, mobile],
      [{ minDurationMs: "4000" }, mobile],
      [{ minDurationMs: "1", maxDurationMs: "3999" }, web],
      [{ hasErrors: "false" }, none],
    ] as const)
      expect([filter, await find(filter)]).toEqual([filter, [found.sessionID]]);
    for (const filter of [
      { userID: "ad" },
      { userID: "plan" },
      { anonymousID: "ada" },
      { "metadata[plan]": "free" },
      { "metadata[plan]": "pro", "metadata[team]": "red" },
      { page: "ttps://shop.example/" },
      { page: "%" },
      { userID: "bob", hasErrors: "false" },
    ])
      expect([filter, await find(filter)]).toEqual([filter, []]);
    expect(await find({ hasErrors: "true" })).toHaveLength(2);
  });
});

test("a label whose time no clock has does not stay the newest", async () => {
  const session = await app.aSession();
  const never = Number.MAX_SAFE_INTEGER;
  await send(session, encodeBatch([encodeMessage(94, never, "future")], { timestamp: AT }));
  await rowWith(session, 1);
  await send(session, encodeBatch([encodeMessage(94, AT, "ada")], { timestamp: AT }));
  expect(await rowWith(session, 2)).toMatchObject({ userID: "ada" });
});

test("batches for a session whose row was lost count when it is restored", async () => {
  await using own = await TestApp.start();
  const session = await own.aSession();
  await own.append(session, MOBILE_BATCH);
  await sessionFacts(own.sql);
  await emptyTables(own.sql);
  await own.stop();
  await using again = await TestApp.start({
    env: { DATABASE_URL: own.databaseUrl, DATA_DIR: own.config.dataDir },
  });
  expect((await again.append(session, WEB_BATCH, WEB)).status).toBe(200);
  await sessionFacts(own.sql);
  await reindex(own);
  const [facts] = await sessionFacts(own.sql);
  expect(facts).toMatchObject({ events: 18n, clicks: 3n });
  expect(facts?.["labels"]).toMatchObject({ user: ["ada", "bob"] });
});

test("a batch that another segment has, too, counts once after a rebuild", async () => {
  await using own = await TestApp.start();
  const session = await own.aSession();
  await own.append(session, MOBILE_BATCH);
  const before = await sessionFacts(own.sql);
  // As if its process had been killed between storing and indexing, and the client had sent it again.
  await own.sql`delete from batches`;
  await own.sql`update sessions set events = 0, clicks = 0, errors = 0, page_views = 0`;
  await own.append(session, MOBILE_BATCH);
  await eventually("it counts", async () => (await sessionRow(own, session))["events"] === 8);
  await own.sql`delete from segments where id < (select max(id::text)::uuid from segments)`;
  await reindex(own);
  expect(await sessionFacts(own.sql)).toEqual(before);
});

test("a rebuild of the database finds the same facts", async () => {
  await using own = await TestApp.start();
  const sessions = [await own.aSession(), await own.aSession()];
  for (const session of sessions) {
    await own.append(session, MOBILE_BATCH);
    await own.append(session, gzipSync(WEB_BATCH), WEB, { "content-encoding": "gzip" });
    await own.append(session, MOBILE_BATCH);
  }
  const before = await sessionFacts(own.sql);
  expect(before).toHaveLength(2);
  expect(before[0]).toMatchObject({ events: 18n, clicks: 3n, errors: 2n });
  await emptyTables(own.sql);
  await reindex(own);
  expect(await sessionFacts(own.sql)).toEqual(before);
  await reindex(own);
  expect(await sessionFacts(own.sql)).toEqual(before);
});
