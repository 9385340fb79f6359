import { describe, expect, setDefaultTimeout, test } from "bun:test";

import { segmentKey } from "../../../src/log/segment.ts";
import { objectOf } from "../../support/answers.ts";
import { TestApp, type TestSession } from "../../support/app.ts";
import { aBatch } from "../../support/batches.ts";
import { runCommand } from "../../support/command.ts";
import { cut, flipped, gone, harm, segmentKeys } from "../../support/damage.ts";
import { FaultyObjects } from "../../support/faulty-objects.ts";
import { aFile, imageOf, upload } from "../../support/images.ts";
import { emptyTables, ingestTables, reindex } from "../../support/ingest-tables.ts";
import { putSegment, segmentId } from "../../support/made-segment.ts";
import { envOf } from "../../support/server-process.ts";

// The first run on a machine may install the S3 server.
setDefaultTimeout(120_000);

const BATCHES = 12;
const batch = (nth: number) => aBatch({ messages: 2, bytes: 800, salt: `${nth}` });

/** Stores one segment per batch, after the segments of the project and the session. */
async function aRecorded(app: TestApp): Promise<{ session: TestSession; keys: string[] }> {
  const session = await app.aSession();
  const before = new Set(await segmentKeys(app.objects));
  for (let nth = 0; nth < BATCHES; nth++) await app.append(session, batch(nth));
  const keys = (await segmentKeys(app.objects)).filter((key) => !before.has(key));
  return { session, keys };
}

describe.each(["files", "s3"] as const)("of a known store in %s", (store) => {
  test("whatever bit is flipped, whatever is cut or gone is reported with its key, and the rows stay", async () => {
    await using app = await TestApp.start({ store });
    const { keys } = await aRecorded(app);
    const before = await ingestTables(app.sql);
    // Offsets: the magic, each field of the record's header, its body, the footer, the trailer.
    const places = [0, 8, 12, 16, 24, 32, 40, 300, -100, -20, -1];
    for (const [nth, at] of places.entries()) await harm(app.objects, keys[nth] ?? "", flipped(at));
    await harm(app.objects, keys[11] ?? "", gone);
    const first = await reindex(app);
    expect(first).toMatchObject({ damaged: 11, missing: 1, known: 13, segments: 0, records: 0 });
    expect(first.problems.map(({ key }) => key).toSorted()).toEqual(keys);
    expect(await ingestTables(app.sql)).toEqual(before);
    for (const key of keys.slice(0, 4)) await harm(app.objects, key, cut(100));
    for (const key of keys.slice(4)) await harm(app.objects, key, gone);
    const second = await reindex(app);
    expect(second).toMatchObject({ damaged: 4, missing: 8, segments: 0, records: 0 });
    expect(second.problems.map(({ key }) => key).toSorted()).toEqual(keys);
    expect(await ingestTables(app.sql)).toEqual(before);
  });
});

test("of an emptied database what is whole is restored, and what is damaged is named by readers", async () => {
  await using app = await TestApp.start({ env: { COMMIT_BYTES: String(2 ** 20) } });
  const session = await app.aSession();
  const sent = Array.from({ length: 10 }, (_, nth) => batch(nth));
  const { sessionID } = session;
  const { key, places } = await putSegment(
    app.objects,
    sent.map((body) => ({ kind: "batch", sessionID, body })),
  );
  expect((await upload(app, session, [aFile("shot", "pixels")])).status).toBe(200);
  await harm(app.objects, key, flipped((places[3]?.offset ?? 0) + 20));
  await harm(app.objects, key, flipped((places[4]?.offset ?? 0) + 20));
  // Damage a header that no reader needs.
  await harm(app.objects, key, flipped((places[7]?.offset ?? 0) - 20));
  await emptyTables(app.sql);
  const done = await reindex(app);
  const problem = { key, reason: "3 of 10 records are not what was written" };
  expect(done).toMatchObject({ damaged: 1, missing: 0, problems: [problem] });
  expect(done.records).toBe(done.segments + 1 + 10 - 2 - 1);
  const { batches } = await objectOf(app.fetch(`/v1/sessions/${sessionID}/batches`));
  if (!Array.isArray(batches)) throw new Error("no batches");
  expect(batches.map((one) => one.missing?.batches ?? 0)).toEqual([0, 0, 0, 2, 0, 0, 0, 0, 0]);
  expect(Buffer.from((await imageOf(app, "shot")) ?? []).toString()).toBe("pixels");
  // A second run knows it, and reports the damage again.
  expect(await reindex(app)).toMatchObject({ damaged: 1, segments: 0, problems: [problem] });
});

test("another copy of a damaged batch is the one that is restored", async () => {
  await using app = await TestApp.start();
  const { sessionID } = await app.aSession();
  const records = [{ kind: "batch" as const, sessionID, body: batch(1) }];
  const first = await putSegment(app.objects, records, { ageMs: 2000 });
  await putSegment(app.objects, records, { ageMs: 1000 });
  await harm(app.objects, first.key, flipped((first.places[0]?.offset ?? 0) + 9));
  await emptyTables(app.sql);
  expect(await reindex(app)).toMatchObject({ damaged: 1 });
  expect(await app.batches({ sessionID })).toEqual([batch(1)]);
});

test("a session whose own record is damaged can be asked for its batches", async () => {
  await using app = await TestApp.start();
  const before = new Set(await segmentKeys(app.objects));
  const session = await app.aSession({ userDevice: "iPhone15,2" });
  const [key = ""] = (await segmentKeys(app.objects)).filter((one) => !before.has(one));
  await app.append(session, batch(1));
  await harm(app.objects, key, flipped(60));
  await emptyTables(app.sql);
  expect(await reindex(app)).toMatchObject({ damaged: 1 });
  expect(await app.batches(session)).toEqual([batch(1)]);
  const { sessions } = await objectOf(app.fetch(`/v1/sessions?projectId=${app.project.id}`));
  expect(sessions).toEqual([expect.objectContaining({ sessionID: session.sessionID })]);
});

test("a segment of more than is read at once is looked at whole", async () => {
  await using app = await TestApp.start();
  const { sessionID } = await app.aSession();
  const large = (nth: number) => ({
    kind: "chunk" as const,
    sessionID,
    body: new Uint8Array(3_000_000).fill(nth),
  });
  const records = [0, 1, 2, 3, 4, 5, 6].map(large);
  const { key, places } = await putSegment(app.objects, records, { bufferBytes: 2 ** 25 });
  expect(await reindex(app)).toMatchObject({ damaged: 0, segments: 1, records: 7 });
  await harm(app.objects, key, flipped((places[3]?.offset ?? 0) + 2_999_999));
  expect((await reindex(app)).problems).toEqual([
    { key, reason: "1 of 7 records are not what was written" },
  ]);
  await harm(app.objects, key, (bytes) =>
    Buffer.concat([bytes.subarray(0, 100), bytes.subarray(101)]),
  );
  expect((await reindex(app)).problems).toEqual([
    { key, reason: "the records do not fill the segment" },
  ]);
});

describe("neither damaged nor missing is", () => {
  test("what a server is just committing, and what was collected since", async () => {
    await using app = await TestApp.start();
    const { session, keys } = await aRecorded(app);
    // One tombstone whose object still exists, and one whose object is gone.
    for (const key of keys.slice(0, 2))
      await app.sql`update segments set deleted = true where id = ${key.slice(-36)}`;
    await harm(app.objects, keys[0] ?? "", gone);
    await harm(app.objects, keys[1] ?? "", flipped(50));
    const objects = new FaultyObjects();
    let at = 0;
    const meanwhile: Promise<unknown>[] = [];
    objects.beforeRead = () => {
      // A segment that is stored after the list was made, and gets its row.
      if (at++ % 2 === 0) meanwhile.push(app.append(session, batch(100 + at)));
    };
    const done = await reindex({ sql: app.sql, objects: objects.wrap(app.objects) });
    await Promise.all(meanwhile);
    expect(meanwhile.length).toBeGreaterThan(3);
    expect(done).toMatchObject({ damaged: 0, missing: 0, problems: [] });
  });

  test("a segment whose row becomes a tombstone while its object goes", async () => {
    await using app = await TestApp.start();
    const { keys } = await aRecorded(app);
    const [key = ""] = keys;
    const objects = new FaultyObjects();
    let collecting: Promise<void> | undefined;
    objects.beforeRead = async (read) => {
      if (read !== key) return;
      collecting ??= (async () => {
        await app.sql`update segments set deleted = true where id = ${key.slice(-36)}`;
        await app.objects.remove(key);
      })();
      await collecting;
    };
    expect(await reindex({ sql: app.sql, objects: objects.wrap(app.objects) })).toMatchObject({
      damaged: 0,
      missing: 0,
    });
  });
});

test("when a whole page of objects is gone each is reported, and nothing else", async () => {
  await using app = await TestApp.start();
  const ids = Array.from({ length: 1137 }, (_, nth) => segmentId(10_000 + nth));
  await app.sql`insert into segments (id, bytes, records) select unnest(${ids}::uuid[]), 1, 1`;
  const done = await reindex(app);
  expect(done.missing).toBe(1137);
  expect(done.damaged).toBe(0);
  expect(done.problems.map(({ key }) => key).toSorted()).toEqual(ids.map(segmentKey).toSorted());
});

test("the command ends with 1 and names what is missing", async () => {
  await using app = await TestApp.start();
  const { keys } = await aRecorded(app);
  const [lost = "", bad = ""] = keys;
  await harm(app.objects, lost, gone);
  await harm(app.objects, bad, flipped(100));
  const json = await runCommand(["reindex", "--json"], envOf(app));
  expect(json.code).toBe(1);
  expect(JSON.parse(json.out)).toMatchObject({ known: 13, damaged: 1, missing: 1 });
  expect(JSON.parse(json.out).problems.toSorted()).toEqual(
    expect.arrayContaining([
      { key: lost, reason: "the object is gone" },
      { key: bad, reason: "1 of 1 records are not what was written" },
    ]),
  );
  const text = await runCommand(["reindex"], envOf(app));
  expect(text.code).toBe(1);
  expect(text.out).toStartWith(
    "0 segments with 0 records indexed, 13 were known, 1 are damaged, 1 are missing\n",
  );
  for (const key of [lost, bad]) expect(text.err).toContain(key);
});
