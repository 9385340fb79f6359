import { gzipSync } from "node:zlib";
import { describe, expect, test } from "bun:test";

import { segmentKey } from "../../src/log/segment.ts";
import { sessionRow } from "../support/answers.ts";
import { TestApp, type TestSession } from "../support/app.ts";
import { mergerOf } from "../support/archive-store.ts";
import { archiveBatches, landingOf, makeArchive, merge, swap } from "../support/archived.ts";
import { archiveAll, dropAll, sweep } from "../support/archives.ts";
import { encodeBatch, encodeMessage } from "../support/batches.ts";
import { runCommand } from "../support/command.ts";
import { flipped, gone, harm, segmentKeys } from "../support/damage.ts";
import { Random } from "../support/random.ts";
import { beginAt, replayOf } from "../support/replays.ts";
import { envOf } from "../support/server-process.ts";
import { answersAbout } from "../support/session-answers.ts";
import { encodeWebBatch, encodeWebMessage } from "../support/web-batches.ts";

const T0 = 1_760_000_000_000;
/** A session of web batches of every kind, malformed, compressed and late ones. */
async function aPage(app: TestApp): Promise<TestSession> {
  const session = await app.aSession();
  await beginAt(app, session, T0);
  for (let nth = 0; nth < 12; nth++) {
    const noise = new Random(nth).bytes(2000 + 900 * nth).toHex();
    const timestamp = T0 + 20_000 - 2000 * nth;
    const version = nth % 5 === 4 ? 4 : 2;
    const batch = encodeWebBatch([encodeWebMessage(14, 3, noise)], { timestamp, version });
    const sent = nth === 7 ? Buffer.from("malformed") : batch;
    await append(app, session, nth % 3 === 0 ? gzipSync(sent) : sent, "/v1/web/i", nth % 3 === 0);
  }
  return session;
}

/** A session of a phone, with a late batch of the session before. */
async function aPhone(app: TestApp): Promise<TestSession> {
  const session = await app.aSession();
  await beginAt(app, session, T0);
  for (let nth = 0; nth < 12; nth++) {
    const firstIndex = nth % 2 === 0 ? nth + 1 : nth - 1;
    const timestamp = nth === 11 ? T0 - 5000 : T0 + firstIndex;
    const message = encodeMessage(103, timestamp, "info", `line ${nth}`);
    const batch = encodeBatch([message], { firstIndex, timestamp });
    const sent = nth === 5 ? Buffer.from("malformed") : batch;
    const path = nth > 9 ? "/v1/mobile/late" : "/v1/mobile/i";
    await append(app, session, nth % 3 === 0 ? gzipSync(sent) : sent, path, nth % 3 === 0);
  }
  return session;
}

async function append(
  app: TestApp,
  session: TestSession,
  body: Uint8Array,
  path: string,
  isGzip: boolean,
) {
  const headers = isGzip ? { "content-encoding": "gzip" } : {};
  expect((await app.append(session, body, path, headers)).status).toBe(200);
}

const app = TestApp.forTests();

const SESSIONS = [
  ["a page", aPage],
  ["a phone", aPhone],
] as const;

describe.each(SESSIONS)("every route says the same about %s", (_what, aSession) => {
  test.each<[string, ((nth: number) => boolean)[]]>([
    ["all are in one archive", [() => true]],
    ["the first ones are", [(nth) => nth < 5]],
    ["the last ones are", [(nth) => nth >= 5]],
    // Each of these numbers those that are left.
    [
      "they are in three archives one after the other",
      [(nth) => nth < 4, (nth) => nth < 4, () => true],
    ],
    ["every other one is", [(nth) => nth % 2 === 0]],
    ["two archives and the rows interleave", [(nth) => nth % 3 === 0, (nth) => nth % 2 === 0]],
    ["three archives interleave", [(nth) => nth % 3 === 0, (nth) => nth % 2 === 0, () => true]],
  ])("when %s", async (_how, moves) => {
    const session = await aSession(app);
    const before = await answersAbout(app, session);
    const made = [];
    for (const which of moves) made.push(await archiveBatches(app, session, { which }));
    expect(await answersAbout(app, session)).toEqual(before);
    if (made.length === 1) return;
    await merge(app, session, made);
    expect(await answersAbout(app, session)).toEqual(before);
  });

  test("when all are stored twice, as rows and in archives", async () => {
    const session = await aSession(app);
    const before = await answersAbout(app, session);
    await archiveBatches(app, session, { keepsRows: true });
    expect(await answersAbout(app, session)).toEqual(before);
    await archiveBatches(app, session, { keepsRows: true, which: (nth) => nth % 2 === 0 });
    expect(await answersAbout(app, session)).toEqual(before);
    await archiveBatches(app, session);
    expect(await answersAbout(app, session)).toEqual(before);
  });

  test("when they are sent again after they were archived", async () => {
    const session = await aSession(app);
    const before = await answersAbout(app, session);
    const [first, second] = await landingOf(app, session);
    const last = (await landingOf(app, session)).at(-1);
    await archiveBatches(app, session);
    const path = aSession === aPage ? "/v1/web/i" : "/v1/mobile/i";
    for (const one of [second, first, last])
      expect((await app.append(session, one?.body ?? new Uint8Array(), path)).status).toBe(200);
    expect(await landingOf(app, session)).toHaveLength(3);
    expect(await answersAbout(app, session)).toEqual(before);
    await archiveBatches(app, session);
    expect(await answersAbout(app, session)).toEqual(before);
  });

  test("when one of two copies is damaged", async () => {
    const session = await aSession(app);
    const before = await answersAbout(app, session);
    const made = await archiveBatches(app, session, { keepsRows: true });
    const { start, indexStart } = made.piece;
    await harm(app.objects, made.key, flipped(Math.floor((start + indexStart) / 2)));
    expect(await answersAbout(app, session)).toEqual(before);
    const stored = await landingOf(app, session);
    const good = await makeArchive(app, session, stored);
    await swap(app, session, { made: [good], moved: stored.map(({ batch }) => batch) });
    expect(await answersAbout(app, session)).toEqual(before);
  });

  test("when the segments of archived batches are gone", async () => {
    const session = await aSession(app);
    const before = await answersAbout(app, session);
    const keys = (await landingOf(app, session)).map(({ batch }) => segmentKey(batch.segmentId));
    await archiveBatches(app, session);
    for (const key of keys) await harm(app.objects, key, gone);
    expect(await answersAbout(app, session)).toEqual(before);
  });
});

test("a session without batches has none when it has a piece of rows", async () => {
  const session = await app.aSession();
  const before = await answersAbout(app, session);
  await archiveBatches(app, session);
  expect(await answersAbout(app, session)).toEqual(before);
});

test("a session's summary counts what was sent twice once", async () => {
  const session = await aPage(app);
  const { batches } = await sessionRow(app, session);
  const stored = await landingOf(app, session);
  await archiveBatches(app, session);
  await app.append(session, stored[3]?.body ?? new Uint8Array(), "/v1/web/i");
  expect((await sessionRow(app, session))["batches"]).toEqual(batches);
  expect(batches).toMatchObject({ count: 12, quarantined: 1 });
});

test("every route says the same when all was archived, its segments are deleted, and archives are merged", async () => {
  await using own = await TestApp.start();
  const sessions = [await aPage(own), await aPhone(own), await own.aSession()];
  const answers = async () =>
    await Promise.all(sessions.map(async (session) => await answersAbout(own, session)));
  const before = await answers();
  await archiveAll(own);
  expect(await answers()).toEqual(before);
  await dropAll(own);
  expect(await segmentKeys(own.objects)).toEqual([]);
  expect(await answers()).toEqual(before);
  // The session is sent another batch, and one that it has.
  for (const session of sessions)
    for (const body of ["malformed", "another"])
      expect((await own.append(session, Buffer.from(body))).status).toBe(200);
  const again = await answers();
  await archiveAll(own);
  expect(await own.sql`select from session_pieces`).toHaveLength(2 * sessions.length);
  expect(await answers()).toEqual(again);
  await mergerOf(own, { graceS: 0 }).look();
  await sweep(own);
  expect(await own.sql`select from session_pieces`).toHaveLength(sessions.length);
  expect(await answers()).toEqual(again);
});

test("export-replay writes the files of archived batches", async () => {
  const session = await aPage(app);
  const { sessionID } = session;
  const expected = await replayOf(app, session, "dom.mobs");
  await archiveBatches(app, session, { which: (nth) => nth % 2 === 0 });
  const out = `${app.config.dataDir}/out`;
  const args = ["export-replay", "--session", sessionID, "--out", out, "--json"];
  const { code, err } = await runCommand(args, envOf(app));
  expect([code, err]).toEqual([0, ""]);
  const written = await Bun.file(`${out}/${sessionID}/dom.mobs`).bytes();
  expect(Buffer.compare(Bun.zstdDecompressSync(written), expected ?? new Uint8Array())).toBe(0);
});
