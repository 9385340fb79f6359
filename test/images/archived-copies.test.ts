import { describe, expect, test } from "bun:test";

import { moveImages } from "../../src/log/unassigned-images.ts";
import { refusalOf } from "../support/answers.ts";
import { TestApp, type TestSession } from "../support/app.ts";
import { archiveImages, placesOf, storedEarly } from "../support/archived-images.ts";
import { archiveKeys } from "../support/archives.ts";
import { type Harm, cut, flipped, gone, harm, segmentKeys } from "../support/damage.ts";
import { eventually } from "../support/eventually.ts";
import { FaultyObjects } from "../support/faulty-objects.ts";
import { aFile, imageList, imageOf, upload } from "../support/images.ts";
import { emptyTables, reindex } from "../support/ingest-tables.ts";
import { Random } from "../support/random.ts";

const SMALL = Buffer.from("pixels");
const LARGE = new Random(4).bytes(2_500_000);
const LONG = new Random(5).bytes(9_000_000);

async function deleteSegments({ objects }: TestApp): Promise<void> {
  for (const key of await segmentKeys(objects)) await objects.remove(key);
}

describe.each<[string, Uint8Array]>([
  ["small", SMALL],
  ["large", LARGE],
])("a %s image whose archive is lost", (name, bytes) => {
  test.each<[string, Harm, string]>([
    ["gone", gone, "the image is gone from the store"],
    ["cut", cut(200), "the image is damaged in the store"],
    ["flipped", flipped(500), "the image is damaged in the store"],
  ])("%s: is 410, and stored anew when it is sent again", async (_, how, text) => {
    await using app = await TestApp.start();
    const [first, second] = [await app.aSession(), await app.aSession()];
    const content = Buffer.concat([bytes, LARGE.subarray(0, 900)]);
    const file = [aFile(name, content)];
    expect((await upload(app, first, file)).status).toBe(200);
    await archiveImages(app);
    const [key = ""] = await archiveKeys(app);
    await harm(app.objects, key, how);
    const path = `/v1/images/${app.project.id}/${name}`;
    expect(await refusalOf(app.fetch(path))).toEqual([410, text]);
    await eventually("marked", async () => {
      const marks = await app.sql`select from unreadable_segments`;
      return marks.length === 1;
    });
    for (const session of [second, second, first])
      expect((await upload(app, session, file)).status).toBe(200);
    const isRead = async ({ sessionID }: TestSession) =>
      Buffer.compare(
        (await imageOf(app, name, app.project.id, `?session=${sessionID}`)) ?? SMALL,
        content,
      ) === 0;
    for (const session of [first, second]) {
      expect(await isRead(session)).toBe(true);
      expect(await imageList(app, session)).toHaveLength(1);
    }
    expect(await placesOf(app, name)).toMatchObject([{ archive: null }]);
    await archiveImages(app);
    await deleteSegments(app);
    expect(await isRead(first)).toBe(true);
  });
});

test("an image of no project is read from its archive once its session's project is known", async () => {
  await using app = await TestApp.start();
  const first = await storedEarly(app, "early", LARGE);
  const second = await storedEarly(app, "early", LARGE);
  await archiveImages(app);
  expect(await archiveKeys(app)).toEqual([expect.stringMatching(/^archives\/0\//)]);
  await deleteSegments(app);
  const places = await placesOf(app, "early");
  for (const sessionId of [first, second]) {
    await app.sql`update sessions set project_id = ${app.project.id} where id = ${sessionId}`;
    await app.sql.begin(async (sql) => await moveImages(sql, [sessionId]));
    const read = await imageOf(app, "early", app.project.id, `?session=${sessionId}`);
    expect(Buffer.compare(read ?? SMALL, LARGE)).toBe(0);
  }
  expect(await placesOf(app, "early")).toEqual(places);
});

test("a copy in an archive stays when the session of another one gets the project", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  expect((await upload(app, session, [aFile("both", LARGE)])).status).toBe(200);
  await archiveImages(app);
  const places = await placesOf(app, "both");
  const sessionId = await storedEarly(app, "both", LARGE);
  await app.sql`update sessions set project_id = ${app.project.id} where id = ${sessionId}`;
  await app.sql.begin(async (sql) => await moveImages(sql, [sessionId]));
  expect(await placesOf(app, "both")).toEqual(places);
});

test("a copy in an archive stays when the segments that had it are restored", async () => {
  await using app = await TestApp.start();
  expect((await upload(app, await app.aSession(), [aFile("large", LARGE)])).status).toBe(200);
  await archiveImages(app);
  const places = await placesOf(app, "large");
  await app.sql`delete from segments`;
  await reindex(app);
  expect(await app.sql`select from segments`).not.toHaveLength(0);
  expect(await placesOf(app, "large")).toEqual(places);
});

/** Replaces the only archive by a copy, as a merge does. */
async function replaceArchive({ sql, objects }: TestApp): Promise<void> {
  const [key = ""] = await archiveKeys({ objects });
  const [row] = await sql<
    { id: string; bytes: number }[]
  >`select id, bytes::float8 as bytes from archives`;
  const id = Bun.randomUUIDv7();
  await objects.put(key.replace(row?.id ?? "", id), await objects.read(key, 0, row?.bytes ?? 0));
  await sql.begin(async (transaction) => {
    await transaction`update archives set id = ${id}`;
    await transaction`update image_contents set archive_id = ${id}`;
  });
  await objects.remove(key);
}

test.each<[string, (app: TestApp) => Promise<void>]>([
  [
    "from its segments to an archive",
    async (app) => {
      await archiveImages(app);
      await deleteSegments(app);
    },
  ],
  ["from one archive to another", replaceArchive],
])("an image that moves %s while it is read goes on from where it is now", async (_, move) => {
  const faulty = new FaultyObjects();
  await using app = await TestApp.start({ wrapObjects: faulty.wrap });
  expect((await upload(app, await app.aSession(), [aFile("long", LONG)])).status).toBe(200);
  if (move === replaceArchive) await archiveImages(app);
  let reads = 0;
  faulty.beforeRead = async () => {
    if (++reads === 3) await move(app);
  };
  const answer = await app.fetch(`/v1/images/${app.project.id}/long`);
  expect(Buffer.compare(await answer.bytes(), LONG)).toBe(0);
  expect(reads).toBeGreaterThan(3);
  expect(await app.sql`select from unreadable_segments`).toHaveLength(0);
});

test("the record of a use of an archived image restores the use alone", async () => {
  await using app = await TestApp.start();
  expect((await upload(app, await app.aSession(), [aFile("known", SMALL)])).status).toBe(200);
  await archiveImages(app);
  const before = await segmentKeys(app.objects);
  const session = await app.aSession();
  for (const file of [aFile("known", SMALL), aFile("new", "new")])
    expect((await upload(app, session, [file])).status).toBe(200);
  for (const key of before) await app.objects.remove(key);
  for await (const { key } of app.objects.list("archives/")) await app.objects.remove(key);
  await emptyTables(app.sql);
  await reindex(app);
  expect([...(await app.sql`select name from image_contents`)]).toEqual([{ name: "new" }]);
  expect([...(await app.sql`select name from image_uses order by name`)]).toEqual([
    { name: "known" },
    { name: "new" },
  ]);
});

test("an image in an archive without a row is lost, not empty", async () => {
  await using app = await TestApp.start();
  expect((await upload(app, await app.aSession(), [aFile("small", SMALL)])).status).toBe(200);
  await archiveImages(app);
  await app.sql`delete from archives`;
  const answer = await app.fetch(`/v1/images/${app.project.id}/small`);
  expect(await refusalOf(answer)).toEqual([410, "the image is gone from the store"]);
});
