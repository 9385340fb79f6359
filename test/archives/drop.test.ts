import { expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import {
  archiveAll,
  archivedOf,
  batchRows,
  dropAll,
  passDays,
  segmentStates,
  toBytes,
} from "../support/archives.ts";
import { flipped, gone, harm, segmentKeys } from "../support/damage.ts";
import { imageOf } from "../support/images.ts";
import { orphansOf, NO_GRACE, NOTHING } from "../support/orphans.ts";
import { batch, marksOf, sendBatches, sendImage } from "../support/verified.ts";

test("an archived segment stays for the time of the feed, then it is deleted, and its tombstone a month later", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  const keys = await sendBatches(app, session, 0, 1);
  await archiveAll(app);
  expect(await dropAll(app, { feedS: 3600 })).toBe(0);
  expect(await segmentKeys(app.objects)).toEqual(expect.arrayContaining(keys));
  expect(await dropAll(app)).toBe((await segmentStates(app)).length);
  expect(await segmentKeys(app.objects)).toEqual([]);
  expect(await segmentStates(app)).toSatisfy((all) => all.every(({ deleted }) => deleted));
  await passDays(app, 29);
  await dropAll(app);
  expect(await segmentStates(app)).not.toEqual([]);
  await passDays(app, 2);
  await dropAll(app);
  expect(await segmentStates(app)).toEqual([]);
  expect(toBytes(await archivedOf(app, session))).toEqual([batch(0), batch(1)]);
});

test("what is not archived is not deleted, however old it is", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  await sendBatches(app, session, 0);
  await app.sql`update segments set created_at = now() - interval '1 year'`;
  expect(await dropAll(app)).toBe(0);
  expect(await app.batches(session)).toEqual([batch(0)]);
});

test("a segment that a row of a batch names is not deleted", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  const [key = ""] = await sendBatches(app, session, 0);
  await app.sql`update segments set archived_at = now()`;
  await dropAll(app);
  expect(await segmentKeys(app.objects)).toEqual([key]);
  expect(await app.batches(session)).toEqual([batch(0)]);
});

test("a segment with parts of images stays for a day, and as long as an image is in it", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  const keys = await sendImage(app, session, "a.jpg", "bytes");
  await archiveAll(app);
  await dropAll(app);
  expect(await segmentKeys(app.objects)).toEqual(expect.arrayContaining(keys));
  await passDays(app, 2);
  await dropAll(app);
  expect(await segmentKeys(app.objects)).toEqual(expect.arrayContaining(keys));
  expect(Buffer.from((await imageOf(app, "a.jpg")) ?? "").toString()).toBe("bytes");
  await app.sql`delete from image_contents`;
  await dropAll(app);
  expect(await segmentKeys(app.objects)).toEqual([]);
});

test("a segment whose parts of images nobody names is kept while an upload may still do so", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  const keys = await sendImage(app, session, "a.jpg", "bytes");
  await archiveAll(app);
  await app.sql`delete from image_contents`;
  await dropAll(app);
  expect(await segmentKeys(app.objects)).toEqual(keys);
  await passDays(app, 1);
  await dropAll(app);
  expect(await segmentKeys(app.objects)).toEqual([]);
});

test("an archived segment that is damaged is kept and reported, and one that is gone is forgotten", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  const [damaged = "", lost = ""] = await sendBatches(app, session, 0, 1);
  await archiveAll(app);
  await harm(app.objects, damaged, flipped(-1));
  await harm(app.objects, lost, gone);
  await dropAll(app);
  expect(await segmentKeys(app.objects)).toEqual([damaged]);
  expect(await marksOf(app)).toEqual([damaged]);
  expect(await batchRows(app)).toBe(0);
});

test("an object that comes back after its segment was deleted is deleted again", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  const [key = ""] = await sendBatches(app, session, 0);
  let copy = new Uint8Array();
  await harm(app.objects, key, (bytes) => (copy = new Uint8Array(bytes)));
  await archiveAll(app);
  await dropAll(app);
  await app.objects.put(key, copy);
  expect(await orphansOf(app, NO_GRACE).look()).toEqual({ ...NOTHING, deleted: 1 });
  expect(await segmentKeys(app.objects)).toEqual([]);
});
