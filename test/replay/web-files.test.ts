import { gzipSync } from "node:zlib";
import { beforeAll, describe, expect, test } from "bun:test";

import { TestApp, type TestSession } from "../support/app.ts";
import { aBatch, concat } from "../support/batches.ts";
import {
  type SentBatch,
  WEB_HEAD,
  batchesIn,
  beginAt,
  replayOf,
  replaysOf,
} from "../support/replays.ts";
import {
  RECORDED,
  type TrackerRequest,
  WEB_VECTORS,
  trackerRequests,
} from "../support/tracker-requests.ts";
import { encodeWebBatch, encodeWebMessage } from "../support/web-batches.ts";

const T0 = 1_760_000_000_000;
const PATH = "/v1/web/i";
const EARLY_MS = 15_000;

const app = TestApp.forTests();

async function sent(session: TestSession, requests: TrackerRequest[]): Promise<void> {
  for (const { path, headers, body } of requests)
    expect((await app.append(session, body, path, headers)).status).toBe(200);
}

async function aSession(...batches: Uint8Array[]): Promise<TestSession> {
  const session = await app.aSession();
  await beginAt(app, session, T0);
  for (const batch of batches) expect((await app.append(session, batch, PATH)).status).toBe(200);
  return session;
}

/** A batch of one mouse move, whose time is in its header, too. */
function aMove(ms: number, version = 2, x = 1): Uint8Array {
  const messages = [encodeWebMessage(0, T0 + ms), encodeWebMessage(20, x, 2)];
  return encodeWebBatch(messages, { version, timestamp: T0 + ms });
}

/** A batch that a tab began. */
function aTabBatch(id: string, ms: number): Uint8Array {
  const messages = [encodeWebMessage(118, id), encodeWebMessage(20, 1, 1)];
  return encodeWebBatch(messages, { timestamp: T0 + ms });
}

function fileOf(batches: SentBatch[], head = WEB_HEAD): Uint8Array {
  return concat([head, ...batches.map(({ bytes }) => bytes)]);
}

describe.each(RECORDED)("of the recorded session %s", (name) => {
  const requests = trackerRequests(name);
  test.each<[string, TrackerRequest[]]>([
    ["as they were sent", requests],
    ["in reverse order", requests.toReversed()],
    ["twice", [...requests, ...requests]],
  ])("the files are the head and the batches, if they arrived %s", async (_how, arrived) => {
    const session = await app.aSession();
    await sent(session, arrived);
    const batches = batchesIn(arrived);
    const dom = batches.filter(({ version }) => version <= 3);
    const devtools = batches.filter(({ version }) => version === 4);
    const begun = dom[0]?.at ?? 0;
    await beginAt(app, session, begun);
    const later = dom.filter(({ at }) => at > begun + EARLY_MS);
    const early = dom.filter(({ at }) => at <= begun + EARLY_MS);
    expect(await replayOf(app, session, "dom.mobs")).toEqual(fileOf(early));
    expect(await replayOf(app, session, "dom.mobe")).toEqual(
      later.length > 0 ? fileOf(later, new Uint8Array()) : undefined,
    );
    expect(await replayOf(app, session, "devtools.mob")).toEqual(
      devtools.length > 0 ? fileOf(devtools) : undefined,
    );
  });
});

test("the page of a vector is the head, its player batch and its assets batch", async () => {
  const session = await aSession();
  const { page, pageStyles } = WEB_VECTORS;
  const visual = { path: `${PATH}?split=${page.length}`, headers: { datatype: "visual" } };
  await sent(session, [{ ...visual, body: concat([page, pageStyles]) }]);
  expect(await replayOf(app, session, "dom.mobs")).toEqual(concat([WEB_HEAD, page, pageStyles]));
  expect(await replaysOf(app, session)).toEqual([
    { name: "dom.mobs", bytes: WEB_HEAD.length + page.length + pageStyles.length },
  ]);
});

describe("the first file has what pages began in the first 15 seconds", () => {
  test("and the second one the rest, each in the order of its times", async () => {
    const times = [40_000, 15_001, 0, 15_000, 15_002, 7];
    const session = await aSession(...times.map((ms) => aMove(ms)));
    expect(await replayOf(app, session, "dom.mobs")).toEqual(
      concat([WEB_HEAD, aMove(0), aMove(7), aMove(15_000)]),
    );
    expect(await replayOf(app, session, "dom.mobe")).toEqual(
      concat([aMove(15_001), aMove(15_002), aMove(40_000)]),
    );
    expect(await replaysOf(app, session)).toEqual([
      { name: "dom.mobs", bytes: 8 + 3 * aMove(0).length },
      { name: "dom.mobe", bytes: 3 * aMove(0).length },
    ]);
  });

  test("and everything if that was nothing", async () => {
    const session = await aSession(aMove(60_000), aMove(50_000));
    expect(await replayOf(app, session, "dom.mobs")).toEqual(
      concat([WEB_HEAD, aMove(50_000), aMove(60_000)]),
    );
    expect(await replayOf(app, session, "dom.mobe")).toBeUndefined();
  });

  test("also of data that comes late, and of clocks before the session's start", async () => {
    const session = await aSession(aMove(20_000), aMove(0));
    expect(await replayOf(app, session, "dom.mobs")).toEqual(concat([WEB_HEAD, aMove(0)]));
    await app.append(session, aMove(-5000), PATH);
    await app.append(session, aMove(3), PATH);
    expect(await replayOf(app, session, "dom.mobs")).toEqual(
      concat([WEB_HEAD, aMove(-5000), aMove(0), aMove(3)]),
    );
    expect(await replayOf(app, session, "dom.mobe")).toEqual(aMove(20_000));
  });

  test("batches of one time keep the order in which they came, whatever their stream", async () => {
    const batches = [aMove(5, 3), aMove(5, 2), aMove(5, 2, 9), aMove(5, 1)];
    const session = await aSession(...batches);
    expect(await replayOf(app, session, "dom.mobs")).toEqual(concat([WEB_HEAD, ...batches]));
  });

  test("a time that no clock has comes last", async () => {
    const session = await aSession(aMove(9e12), aMove(0));
    expect(await replayOf(app, session, "dom.mobs")).toEqual(concat([WEB_HEAD, aMove(0)]));
    expect(await replayOf(app, session, "dom.mobe")).toEqual(aMove(9e12));
  });
});

describe("left out are", () => {
  let session: TestSession;
  beforeAll(async () => {
    session = await aSession(
      aTabBatch("one", 1),
      aMove(2, 5),
      aMove(3, 2).subarray(0, -1),
      aMove(4, 9),
      new TextEncoder().encode("not a batch"),
      aTabBatch("two", 1),
      aMove(6, 4),
    );
    await app.append(session, gzipSync(aMove(7)), PATH, { "content-encoding": "gzip" });
    expect((await app.append(session, aBatch({ timestamp: T0 }))).status).toBe(200);
  });

  test("analytics, malformed and foreign batches; tabs stay side by side", async () => {
    expect(await replayOf(app, session, "dom.mobs")).toEqual(
      concat([WEB_HEAD, aTabBatch("one", 1), aTabBatch("two", 1), aMove(7)]),
    );
    expect(await replayOf(app, session, "devtools.mob")).toEqual(concat([WEB_HEAD, aMove(6, 4)]));
  });

  test("product analytics, and kinds that a later version stores", async () => {
    const other = await aSession(aMove(0), aMove(1), aMove(2));
    await app.sql`update batches set flags = case when first_at = ${new Date(T0)} then 96 else 240 end
      where session_id = ${other.sessionID} and first_at < ${new Date(T0 + 2)}`;
    expect(await replayOf(app, other, "dom.mobs")).toEqual(concat([WEB_HEAD, aMove(2)]));
  });

  test("both halves of a request that was cut inside a message", async () => {
    const other = await aSession();
    const { page, pageStyles } = WEB_VECTORS;
    const headers = { datatype: "visual" };
    const body = concat([page, pageStyles]);
    const path = `${PATH}?split=${page.length - 3}`;
    await sent(other, [{ path, headers, body }]);
    expect(await replaysOf(app, other)).toEqual([]);
  });
});

test("a session without batches has no files", async () => {
  const session = await aSession();
  expect(await replaysOf(app, session)).toEqual([]);
  for (const name of ["dom.mobs", "dom.mobe", "devtools.mob", "replay.frames"])
    expect(await replayOf(app, session, name)).toBeUndefined();
});

test("a session that only logged has no DOM file", async () => {
  const session = await aSession(aMove(0, 4));
  expect(await replaysOf(app, session)).toEqual([
    { name: "devtools.mob", bytes: 8 + aMove(0).length },
  ]);
});
