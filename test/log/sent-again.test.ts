import { describe, expect, setDefaultTimeout, test } from "bun:test";

import { segmentKey } from "../../src/log/segment.ts";
import { metric } from "../support/answers.ts";
import { TestApp, type TestSession } from "../support/app.ts";
import { aBatch } from "../support/batches.ts";
import { type Harm, cut, flipped, gone, harm, segmentKeys } from "../support/damage.ts";
import { eventually } from "../support/eventually.ts";
import { emptyTables, reindex } from "../support/ingest-tables.ts";
import { putSegment } from "../support/made-segment.ts";
import { NOTHING, NO_GRACE, orphansOf } from "../support/orphans.ts";

// The first run on a machine may install the S3 server.
setDefaultTimeout(120_000);

// Offset inside the body of a segment's only batch.
const IN_BODY = 300;
const batch = (nth: number) => aBatch({ messages: 2, bytes: 1000, salt: `batch ${nth}` });
const HARMS: [string, Harm][] = [
  ["gone", gone],
  ["flipped", flipped(IN_BODY)],
  ["cut", cut(60)],
];

/** Stores three batches in a segment each, and returns the segments' keys. */
async function aRecorded(app: TestApp): Promise<{ session: TestSession; keys: string[] }> {
  const session = await app.aSession();
  const before = new Set(await segmentKeys(app.objects));
  for (const nth of [0, 1, 2]) await send(app, session, nth);
  const keys = (await segmentKeys(app.objects)).filter((key) => !before.has(key));
  expect(keys).toHaveLength(3);
  return { session, keys };
}

async function send(app: TestApp, session: TestSession, nth: number): Promise<void> {
  expect((await app.append(session, batch(nth))).status).toBe(200);
}

/** Reads the session, without what is lost. */
async function readable(app: TestApp, session: TestSession): Promise<Uint8Array[]> {
  return await app.batches(session, "?skipMissing=true");
}

async function marks(app: TestApp): Promise<string[]> {
  const rows = await app.sql<{ id: string }[]>`select segment_id as id from unreadable_segments`;
  return rows.map(({ id }) => segmentKey(id)).toSorted();
}

async function marked(app: TestApp, ...keys: string[]): Promise<void> {
  const expected = JSON.stringify(keys.toSorted());
  await eventually("marked", async () => JSON.stringify(await marks(app)) === expected);
}

const counted = async (app: TestApp, outcome: "stored" | "duplicate") =>
  await metric(app, `floodgate_batches_total{outcome="${outcome}"}`);

describe.each(["files", "s3"] as const)("a batch in %s whose only copy is", (store) => {
  test.each(HARMS)("%s is readable exactly once after it was sent again", async (_, how) => {
    await using app = await TestApp.start({ store });
    const { session, keys } = await aRecorded(app);
    const [, key = ""] = keys;
    await harm(app.objects, key, how);
    expect(await readable(app, session)).toEqual([batch(0), batch(2)]);
    await marked(app, key);

    const all = [batch(0), batch(2), batch(1)];
    const [stored, duplicates] = [await counted(app, "stored"), await counted(app, "duplicate")];
    await Promise.all(Array.from({ length: 10 }, async () => await send(app, session, 1)));
    expect(await app.batches(session)).toEqual(all);
    // A copy that can be read stays.
    for (const nth of [0, 1, 2]) await send(app, session, nth);
    expect(await app.batches(session)).toEqual(all);
    expect(await counted(app, "stored")).toBe(stored + 1);
    expect(await counted(app, "duplicate")).toBe(duplicates + 12);

    // Rebuilt from the store, with the lost copy still there as far as it was.
    await emptyTables(app.sql);
    await reindex(app);
    expect(await app.batches(session)).toEqual(all);
  });
});

test("an object that came back is read again, and what was sent again meanwhile is not doubled", async () => {
  await using app = await TestApp.start();
  const { session, keys } = await aRecorded(app);
  const [key = "", other = ""] = keys;
  const backups = new Map<string, Uint8Array>();
  for (const lost of [key, other])
    await harm(app.objects, lost, (bytes) => void backups.set(lost, Buffer.from(bytes)));
  expect(await readable(app, session)).toEqual([batch(2)]);
  await marked(app, key, other);
  await send(app, session, 0);
  for (const [lost, bytes] of backups) await app.objects.put(lost, bytes);
  expect(await app.batches(session)).toEqual([batch(1), batch(2), batch(0)]);

  expect(await reindex(app)).toMatchObject({ damaged: 0, missing: 0, segments: 0 });
  expect(await marks(app)).toEqual([]);
  for (const nth of [0, 1]) await send(app, session, nth);
  expect(await app.batches(session)).toEqual([batch(1), batch(2), batch(0)]);
  await emptyTables(app.sql);
  await reindex(app);
  expect(await app.batches(session)).toEqual([batch(0), batch(1), batch(2)]);
});

test("what reindex finds missing or damaged is readable after it was sent again, without a read in between", async () => {
  await using app = await TestApp.start();
  const { session, keys } = await aRecorded(app);
  const [missing = "", damaged = ""] = keys;
  await harm(app.objects, missing, gone);
  await harm(app.objects, damaged, flipped(IN_BODY));
  expect(await reindex(app)).toMatchObject({ damaged: 1, missing: 1 });
  expect(await marks(app)).toEqual([missing, damaged].toSorted());
  for (const nth of [0, 1, 2]) await send(app, session, nth);
  expect(await app.batches(session)).toEqual([batch(2), batch(0), batch(1)]);
  expect(await reindex(app)).toMatchObject({ damaged: 1, missing: 1 });
  expect(await app.batches(session)).toEqual([batch(2), batch(0), batch(1)]);
});

test("an orphan that has the only readable copy is adopted", async () => {
  await using app = await TestApp.start();
  const { session, keys } = await aRecorded(app);
  await putSegment(app.objects, [{ kind: "batch", ...session, body: batch(0) }]);
  await harm(app.objects, keys[0] ?? "", gone);
  expect(await readable(app, session)).toEqual([batch(1), batch(2)]);
  await marked(app, keys[0] ?? "");
  expect(await orphansOf(app, NO_GRACE).look()).toEqual({ ...NOTHING, adopted: 1 });
  expect(await app.batches(session)).toEqual([batch(1), batch(2), batch(0)]);
});

test("a read that cannot mark what is lost goes on, and the next one marks it", async () => {
  await using app = await TestApp.start();
  const { session, keys } = await aRecorded(app);
  await harm(app.objects, keys[0] ?? "", gone);
  await app.sql`alter table unreadable_segments rename to elsewhere`;
  expect(await readable(app, session)).toEqual([batch(1), batch(2)]);
  await app.sql`alter table elsewhere rename to unreadable_segments`;
  await eventually("marked", async () => {
    expect(await readable(app, session)).toEqual([batch(1), batch(2)]);
    return (await marks(app)).length === 1;
  });
});
