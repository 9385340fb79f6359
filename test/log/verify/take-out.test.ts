import { describe, expect, setDefaultTimeout, test } from "bun:test";

import { TestApp } from "../../support/app.ts";
import { cut, flipped, gone, harm, segmentKeys } from "../../support/damage.ts";
import { failure } from "../../support/failure.ts";
import { FaultyObjects } from "../../support/faulty-objects.ts";
import { aFile, imagesOf, textOf, upload } from "../../support/images.ts";
import { storedBefore } from "../../support/images-before.ts";
import { emptyTables, ingestTables, reindex } from "../../support/ingest-tables.ts";
import { NOTHING, NO_GRACE, orphansOf, stateOf } from "../../support/orphans.ts";
import { aProject } from "../../support/projects.ts";
import {
  batch,
  lostImage,
  lostOf,
  missingSegment,
  sendBatches,
  sendImage,
  takenOut,
  verified,
} from "../../support/verified.ts";

const STORES =
  process.env["TEST_LONG"] === undefined ? (["files"] as const) : (["files", "s3"] as const);

// The first run on a machine may install the S3 server.
setDefaultTimeout(120_000);

const IN_BODY = 300;
const LARGE = "x".repeat(300_000);

/** A session with three batches and two sessions with an image; a batch and the image are gone. */
async function aLoss(app: TestApp) {
  const [session, other] = [await app.aSession(), await app.aSession()];
  const [lost = ""] = await sendBatches(app, session, 0, 1, 2);
  const chunks = await sendImage(app, session, "shot", LARGE);
  await sendImage(app, other, "shot", LARGE);
  const keys = [lost, ...chunks.slice(0, -1)];
  const backup = new Map<string, Uint8Array>();
  for (const key of keys)
    await harm(app.objects, key, (bytes) => void backup.set(key, Uint8Array.from(bytes)));
  const found = [
    ...keys.map(missingSegment),
    lostOf(session, "missing", { batches: 1, images: 1 }),
    lostOf(other, "missing", { images: 1 }),
    lostImage("shot", "missing", LARGE),
  ];
  return { session, other, keys, backup, found };
}

describe.each(STORES)("what is gone from %s", (store) => {
  test("is taken out and said, once, and everything else stays", async () => {
    await using app = await TestApp.start({ store, env: { COMMIT_BYTES: String(128 * 1024) } });
    const { session, other, found, keys } = await aLoss(app);
    const [bad = "", short = ""] = await sendBatches(app, session, 3, 4, 5);
    await harm(app.objects, bad, flipped(IN_BODY));
    await harm(app.objects, short, cut(0));
    await verified(app);
    const before = await ingestTables(app.sql);
    expect(await takenOut(app)).toEqual(found);
    const after = await ingestTables(app.sql);
    const kept: Record<string, unknown> = {
      ...before,
      batches: before.batches.filter(({ row }) => row.segment_id !== keys[0]?.slice(-36)),
      segments: before.segments.filter(({ row }) => !keys.some((key) => key.endsWith(row.id))),
      contents: [],
      uses: [],
    };
    expect(kept).toEqual(after);
    // Damaged objects are still there, so their rows stay, and readers name them.
    expect(await app.batches(session, "?skipMissing=true")).toEqual([1, 2, 5].map(batch));
    expect(await imagesOf(app, other)).toEqual([]);
    const damaged = (await verified(app)).found;
    expect(damaged.map(({ what, state }) => [what, state])).toEqual([
      ["segment", "damaged"],
      ["segment", "damaged"],
      ["session", "damaged"],
    ]);
    expect(await takenOut(app)).toEqual([]);
    expect((await stateOf(app)).orphans).toEqual([]);
    expect(await orphansOf(app, NO_GRACE).look()).toEqual(NOTHING);
  });

  test("and is sent again is stored, and read", async () => {
    await using app = await TestApp.start({ store, env: { COMMIT_BYTES: String(128 * 1024) } });
    const { session, other } = await aLoss(app);
    await verified(app, { quick: true });
    await takenOut(app);
    await sendBatches(app, session, 0, 1, 2);
    expect(await app.batches(session)).toEqual([1, 2, 0].map(batch));
    await sendImage(app, other, "shot", LARGE);
    expect(await textOf(app, other, "shot")).toBe(LARGE);
    expect(await imagesOf(app, session)).toEqual([]);
    await sendImage(app, session, "shot", LARGE);
    expect(await textOf(app, session, "shot")).toBe(LARGE);
    expect((await verified(app)).found).toEqual([]);
  });
});

describe("reindex", () => {
  test("finds nothing missing afterwards, and restores nothing", async () => {
    await using app = await TestApp.start({ env: { COMMIT_BYTES: String(128 * 1024) } });
    await aLoss(app);
    await verified(app);
    await takenOut(app);
    const before = await ingestTables(app.sql);
    expect(await reindex(app)).toMatchObject({ damaged: 0, missing: 0, segments: 0, records: 0 });
    expect(await ingestTables(app.sql)).toEqual(before);
  });

  test("of an emptied database brings the image's record back, which is found and taken out again", async () => {
    await using app = await TestApp.start({ env: { COMMIT_BYTES: String(128 * 1024) } });
    const { session } = await aLoss(app);
    await verified(app);
    await takenOut(app);
    await emptyTables(app.sql);
    expect(await reindex(app)).toMatchObject({ damaged: 0, missing: 0 });
    expect(await app.batches(session)).toEqual([1, 2].map(batch));
    const { found } = await verified(app);
    expect(found).toContainEqual(lostOf(session, "missing", { images: 1 }));
    expect(await takenOut(app)).toEqual(found);
    expect((await verified(app)).found).toEqual([]);
    await sendImage(app, session, "shot", LARGE);
    expect(await textOf(app, session, "shot")).toBe(LARGE);
  });
});

test("what comes back after it was taken out is taken in again, and not doubled", async () => {
  await using app = await TestApp.start({ env: { COMMIT_BYTES: String(128 * 1024) } });
  const { session, backup, keys } = await aLoss(app);
  const [alsoLost = ""] = await sendBatches(app, session, 3);
  await harm(app.objects, alsoLost, (bytes) => void backup.set(alsoLost, Uint8Array.from(bytes)));
  await verified(app);
  await takenOut(app);
  await sendBatches(app, session, 0);
  for (const [key, bytes] of backup) await app.objects.put(key, bytes);
  const orphans = orphansOf(app, NO_GRACE);
  expect(await orphans.look()).toMatchObject({ adopted: 1, damaged: 0 });
  expect(await segmentKeys(app.objects)).toContain(alsoLost);
  expect(await app.batches(session)).toEqual([1, 2, 3, 0].map(batch));
  expect(await segmentKeys(app.objects)).not.toContain(keys[0] ?? "");
});

test("of one project only its rows are taken out, and segments stay", async () => {
  await using app = await TestApp.start({ env: { COMMIT_BYTES: String(128 * 1024) } });
  const { session, found, keys } = await aLoss(app);
  const other = await aProject(app);
  const theirs = await app.aSession({ projectID: other.projectID });
  const [key = ""] = await sendBatches(app, theirs, 9);
  await harm(app.objects, key, gone);
  expect((await verified(app, { project: other.id })).found).toHaveLength(2);
  const before = await ingestTables(app.sql);
  const lost = lostOf(theirs, "missing", { batches: 1, projectId: other.id });
  expect(await takenOut(app, other.id)).toEqual([lost]);
  const kept: Record<string, unknown> = {
    ...before,
    batches: before.batches.filter(({ row }) => row.segment_id !== key.slice(-36)),
  };
  expect(kept).toEqual(await ingestTables(app.sql));
  expect((await verified(app, { project: other.id })).found).toEqual([]);
  // The others find what is left, the segment included.
  await verified(app);
  expect(await takenOut(app)).toEqual(found.toSpliced(keys.length, 0, missingSegment(key)));
  await sendBatches(app, theirs, 9);
  expect(await app.batches(theirs)).toEqual([batch(9)]);
  expect(await app.batches(session)).toEqual([1, 2].map(batch));
});

test("images of the previous version are taken out, and can be sent again", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  const { key } = await storedBefore(app, session, { name: "before", content: "content" });
  await reindex(app);
  await harm(app.objects, key, gone);
  const { found } = await verified(app);
  const image = lostImage("before", "missing");
  expect(found).toContainEqual(image);
  expect(await takenOut(app)).toContainEqual(image);
  expect((await ingestTables(app.sql)).images).toHaveLength(0);
  await upload(app, session, [aFile("before", "content")]);
  expect(await textOf(app, session, "before")).toBe("content");
});

describe("a copy that is sent again", () => {
  test("between the check and the repair stays", async () => {
    await using app = await TestApp.start({ env: { COMMIT_BYTES: String(128 * 1024) } });
    const { session, other, keys } = await aLoss(app);
    await verified(app);
    await sendBatches(app, session, 0);
    await sendImage(app, session, "shot", LARGE);
    expect(await takenOut(app)).toEqual(keys.map(missingSegment));
    expect(await app.batches(session)).toEqual([1, 2, 0].map(batch));
    for (const one of [session, other]) expect(await textOf(app, one, "shot")).toBe(LARGE);
  });

  test("while the rows are about to be taken out stays", async () => {
    await using app = await TestApp.start({ env: { COMMIT_BYTES: String(128 * 1024) } });
    const { session, other, found } = await aLoss(app);
    await verified(app);
    const objects = new FaultyObjects();
    let sending: Promise<void> | undefined;
    // The first read after the rows were selected.
    objects.beforeRead = async () => {
      sending ??= (async () => {
        await sendBatches(app, session, 0);
        await sendImage(app, session, "shot", LARGE);
      })();
      await sending;
    };
    const removed = await takenOut({ sql: app.sql, objects: objects.wrap(app.objects) });
    expect(removed.filter(({ what }) => what === "session")).toEqual([]);
    expect(found.length).toBeGreaterThan(removed.length);
    expect(await app.batches(session)).toEqual([1, 2, 0].map(batch));
    for (const one of [session, other]) expect(await textOf(app, one, "shot")).toBe(LARGE);
  });
});

test("broken off at any read of the store, it leaves nothing half done, and the next run goes on", async () => {
  await using app = await TestApp.start({ env: { COMMIT_BYTES: String(128 * 1024) } });
  const { session, other } = await aLoss(app);
  await verified(app);
  const start = await ingestTables(app.sql);
  for (let reads = 1; ; reads++) {
    const objects = new FaultyObjects();
    let read = 0;
    objects.beforeRead = () => {
      if (++read === reads) throw new Error("broken off");
    };
    const run = takenOut({ sql: app.sql, objects: objects.wrap(app.objects) });
    const error = await failure(run);
    const { uses, contents } = await ingestTables(app.sql);
    // No use without its image.
    if (uses.length > 0) expect(contents).toEqual(start.contents);
    expect(await app.batches(session, "?skipMissing=true")).toEqual([1, 2].map(batch));
    if (error === undefined) break;
    expect(error).toEqual(new Error("broken off"));
  }
  expect((await verified(app)).found).toEqual([]);
  await sendBatches(app, session, 0);
  for (const one of [session, other]) {
    await sendImage(app, one, "shot", LARGE);
    expect(await textOf(app, one, "shot")).toBe(LARGE);
  }
  expect(await app.batches(session)).toEqual([1, 2, 0].map(batch));
});

test("what comes back in the middle of a repair is taken in again", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  const [key = ""] = await sendBatches(app, session, 0, 1);
  let backup = new Uint8Array(0);
  await harm(app.objects, key, (bytes) => void (backup = Uint8Array.from(bytes)));
  await verified(app);
  const objects = new FaultyObjects();
  let reads = 0;
  // The third read looks for evidence before the batch is taken out.
  objects.beforeRead = async () => {
    if (++reads === 3) await app.objects.put(key, backup);
  };
  expect(await takenOut({ sql: app.sql, objects: objects.wrap(app.objects) })).toEqual([
    missingSegment(key),
    lostOf(session, "missing", { batches: 1 }),
  ]);
  expect(await app.batches(session)).toEqual([batch(1)]);
  expect(await orphansOf(app, NO_GRACE).look()).toEqual({ ...NOTHING, adopted: 1 });
  expect(await app.batches(session)).toEqual([0, 1].map(batch));
});
