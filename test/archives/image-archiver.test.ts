import { join } from "node:path";
import { pino } from "pino";
import { describe, expect, test } from "bun:test";

import { archiveNameOf } from "../../src/archives/archive-key.ts";
import { type ImageMoment } from "../../src/archives/image-archiver.ts";
import { Overtaken } from "../../src/archives/swap.ts";
import { Unhashed } from "../../src/images/unhashed.ts";
import { SegmentReader } from "../../src/log/segment-reader.ts";
import { segmentKey } from "../../src/log/segment.ts";
import { moveImages } from "../../src/log/unassigned-images.ts";
import { TestApp } from "../support/app.ts";
import {
  archiveImages,
  archivesOf,
  endImageLeases,
  imageArchiver,
  placesOf,
  stored,
  storedEarly,
} from "../support/archived-images.ts";
import { archiveAll, archiveKeys, endLeases, sweep } from "../support/archives.ts";
import { type Harm, flipped, gone, harm, segmentKeys } from "../support/damage.ts";
import { eventually } from "../support/eventually.ts";
import { failure } from "../support/failure.ts";
import { aFile, imageOf, textOf, upload } from "../support/images.ts";
import { storedBefore } from "../support/images-before.ts";
import { Random } from "../support/random.ts";
import { ServerProcess, envOf } from "../support/server-process.ts";

const ROOT = join(import.meta.dir, "../..");
const LARGE = new Random(6).bytes(500_000);
const LONG = new Random(7).bytes(9_000_000);

/** Loses the last chunk of an image. */
async function lose(app: TestApp, name: string, how: (offset: number) => Harm): Promise<void> {
  const [row] = await app.sql<{ id: string; offset: number }[]>`
    select chunk_segments[cardinality(chunk_segments)] as id, chunk_offsets[cardinality(chunk_offsets)] as offset
    from image_contents where name = ${name}`;
  await harm(app.objects, segmentKey(row?.id ?? ""), how(row?.offset ?? 0));
}

describe("an image of which a chunk is lost stays where it is", () => {
  test.each<[string, (offset: number) => Harm]>([
    ["gone", () => gone],
    ["damaged", (offset) => flipped(offset + 1)],
  ])("%s: others are archived, and it is stored anew when it is sent again", async (_, how) => {
    await using app = await TestApp.start();
    await stored(app, { before: "one", lost: "pixels", after: "two" });
    await lose(app, "lost", how);
    const archiver = imageArchiver(app);
    expect(await archiver.step()).toBe(3);
    expect(await archiver.step()).toBe(0);
    expect(await placesOf(app, "lost")).toEqual([{ archive: null, chunks: 1 }]);
    expect(await app.sql`select from unreadable_segments`).toHaveLength(1);
    for (const name of ["before", "after"])
      expect(await placesOf(app, name)).toMatchObject([{ chunks: 0 }]);
    const session = await stored(app, { lost: "pixels" });
    await endImageLeases(app);
    await archiveImages(app);
    expect(await placesOf(app, "lost")).toMatchObject([{ chunks: 0 }]);
    expect(await textOf(app, session, "lost")).toBe("pixels");
  });

  test("a long one leaves no archive behind", async () => {
    await using app = await TestApp.start();
    await stored(app, { long: LONG });
    await lose(app, "long", () => gone);
    await archiveImages(app);
    expect(await placesOf(app, "long")).toMatchObject([{ archive: null }]);
    expect(await app.sql`select from unreadable_segments`).toHaveLength(1);
    expect(await archivesOf(app)).toEqual({ rows: 0, objects: 0, garbage: 0 });
  });

  test("bytes that are not those of the hash are not archived", async () => {
    await using app = await TestApp.start();
    await stored(app, { one: "pixels", two: "pixelt" });
    await app.sql`
      update image_contents as content set (chunk_segments, chunk_offsets) = (other.chunk_segments, other.chunk_offsets)
      from image_contents as other where content.name = 'one' and other.name = 'two'`;
    await archiveImages(app);
    expect(await placesOf(app, "one")).toMatchObject([{ archive: null }]);
    expect(await placesOf(app, "two")).toMatchObject([{ chunks: 0 }]);
  });
});

describe("an archiver that is killed", () => {
  test.each<[ImageMoment, number]>([
    ["claimed", 0],
    ["written", 0],
    ["swapping", 0],
    ["swapped", 1],
  ])("when it has %s leaves images readable, and another one goes on", async (moment, rows) => {
    await using app = await TestApp.start();
    await stored(app, { small: "pixels", large: LARGE });
    const child = Bun.spawn([process.execPath, "test/support/archive-images-and-die.ts"], {
      cwd: ROOT,
      env: { ...process.env, ...envOf(app), DIE_AT: moment },
    });
    await child.exited;
    expect(child.signalCode).toBe("SIGKILL");
    expect((await archivesOf(app)).rows).toBe(rows);
    expect(Buffer.compare((await imageOf(app, "large")) ?? LONG, LARGE)).toBe(0);
    // Until its lease ends, its images are not taken up.
    expect(await imageArchiver(app).step()).toBe(0);
    await endLeases(app);
    await endImageLeases(app);
    await archiveImages(app);
    await sweep(app);
    const { rows: live, objects, garbage } = await archivesOf(app);
    expect([live, objects, garbage]).toEqual([1, 1, 0]);
    for (const key of await segmentKeys(app.objects)) await app.objects.remove(key);
    expect(Buffer.compare((await imageOf(app, "large")) ?? LONG, LARGE)).toBe(0);
  });
});

describe("two archivers at once", () => {
  test("share the images", async () => {
    await using app = await TestApp.start();
    await stored(app, Object.fromEntries(Array.from({ length: 40 }, (_, n) => [`n${n}`, `b${n}`])));
    const tried = await Promise.all(
      Array.from({ length: 4 }, async () => await imageArchiver(app).step()),
    );
    expect(tried.reduce((sum, count) => sum + count)).toBe(40);
    expect(await app.sql`select from image_contents where archive_id is null`).toHaveLength(0);
    const [row] = await app.sql<[{ records: number }]>`
      select sum(records)::integer as records from archives`;
    expect(row.records).toBe(80);
  });

  test("archive an image once, also if the lease of one ran out", async () => {
    await using app = await TestApp.start();
    await stored(app, { image: "pixels" });
    let isOvertaken = false;
    const slow = imageArchiver(app, {
      at: async (moment) => {
        if (moment !== "written" || isOvertaken) return;
        isOvertaken = true;
        await endImageLeases(app);
        await archiveImages(app);
      },
    });
    const places = async () => await placesOf(app, "image");
    expect(await failure(slow.step())).toBeInstanceOf(Overtaken);
    expect(await places()).toMatchObject([{ chunks: 0 }]);
    expect(await archivesOf(app)).toEqual({ rows: 1, objects: 1, garbage: 0 });
    expect(await imageOf(app, "image")).toEqual(Buffer.from("pixels"));
  });
});

describe("while images are archived", () => {
  test.each<ImageMoment>(["claimed", "written", "swapping"])(
    "a use that is recorded when they are %s counts",
    async (moment) => {
      await using app = await TestApp.start();
      await stored(app, { image: "pixels" });
      const other = await app.aSession();
      const uploads: Promise<Response>[] = [];
      const archiver = imageArchiver(app, {
        at: async (at) => {
          if (at !== moment) return;
          const sent = upload(app, other, [aFile("image", "pixels")]);
          uploads.push(sent);
          // In the transaction the upload waits for it.
          if (moment !== "swapping") await sent;
        },
      });
      expect(await archiver.step()).toBe(1);
      const statuses = await Promise.all(uploads.map(async (sent) => (await sent).status));
      expect(statuses).toEqual([200]);
      expect(await textOf(app, other, "image")).toBe("pixels");
      const rows =
        await app.sql`select uses, archive_id is not null as archived from image_contents`;
      expect([...rows]).toEqual([{ uses: 2, archived: true }]);
    },
  );

  test("an image whose project is learned is not archived under the old one", async () => {
    await using app = await TestApp.start();
    const sessionId = await storedEarly(app, "early", LARGE);
    const archiver = imageArchiver(app, {
      at: async (moment) => {
        if (moment !== "written") return;
        await app.sql`update sessions set project_id = ${app.project.id} where id = ${sessionId}`;
        await app.sql.begin(async (sql) => await moveImages(sql, [sessionId]));
      },
    });
    expect(await failure(archiver.step())).toBeInstanceOf(Error);
    expect(await archivesOf(app)).toEqual({ rows: 0, objects: 0, garbage: 0 });
    await archiveImages(app);
    expect((await archiveKeys(app)).map(archiveNameOf)).toMatchObject([
      { projectId: app.project.id },
    ]);
    expect(Buffer.compare((await imageOf(app, "early")) ?? LONG, LARGE)).toBe(0);
  });
});

test("images are archived when they are old, and not before", async () => {
  await using app = await TestApp.start();
  await stored(app, { image: "pixels" });
  const stopping = new AbortController();
  const running = imageArchiver(app, { afterS: 3600 }).run(stopping.signal);
  const isArchived = async () => (await archivesOf(app)).rows === 1;
  const age = async (by: string) =>
    await app.sql`update image_contents set stored_at = stored_at - ${by}::text::interval`;
  // Old enough, but so few that it is worth waiting for more.
  await age("61 minutes");
  expect(await imageArchiver(app, { afterS: 3600 }).step()).toBe(0);
  expect(await isArchived()).toBe(false);
  await age("60 minutes");
  await eventually("archived", isArchived);
  stopping.abort();
  await running;
});

test("no image is archived while a process of an older version serves", async () => {
  await using app = await TestApp.start();
  await stored(app, { image: "pixels" });
  await app.sql`update session_worker_leases set archive_reader = null`;
  expect(await imageArchiver(app).step()).toBe(0);
  expect(await placesOf(app, "image")).toMatchObject([{ archive: null }]);
});

test("a working process archives what a server took in", async () => {
  await using app = await TestApp.start();
  const session = await stored(app, { small: "pixels", large: LARGE });
  const times = { ARCHIVE_AFTER_S: "0.3", OBJECT_GRACE_S: "0.3" };
  await using worker = await ServerProcess.start({ ...envOf(app), ...times }, [
    "src/main.ts",
    "work",
  ]);
  await eventually("all are archived", async () => {
    const landed = await app.sql`select from image_contents where archive_id is null`;
    return landed.length === 0;
  });
  expect(await textOf(app, session, "small")).toBe("pixels");
  expect(Buffer.compare((await imageOf(app, "large")) ?? LONG, LARGE)).toBe(0);
  worker.signal("SIGTERM");
  expect(await worker.exited).toBe(0);
});

test("an image of the version before is archived once it is hashed", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  await storedBefore(app, session, { name: "old", content: "pixels", ageMs: 60_000 });
  await archiveImages(app);
  expect(await archiveKeys(app)).toEqual([]);
  const { sql, objects } = app;
  const log = pino({ level: "silent" });
  await new Unhashed({ sql, reader: new SegmentReader(objects), log }).hash(app.project.id, "old");
  await archiveImages(app);
  expect(await placesOf(app, "old")).toMatchObject([{ chunks: 0 }]);
  for (const key of await segmentKeys(objects)) await objects.remove(key);
  expect(await textOf(app, session, "old")).toBe("pixels");
});

test.each([true, false])(
  "an archive that lost its row is deleted only if the segments of its images are there: %p",
  async (areThere) => {
    await using app = await TestApp.start();
    await stored(app, { image: "pixels" });
    await archiveAll(app);
    await archiveImages(app);
    const [row] = await app.sql<
      { id: string }[]
    >`delete from archives where kind = 'images' returning id`;
    const key = (await archiveKeys(app)).find((one) => archiveNameOf(one)?.id === row?.id) ?? "";
    await app.sql`insert into object_garbage (key, due_at) values (${key}, now())`;
    if (!areThere)
      for (const segment of await segmentKeys(app.objects)) await app.objects.remove(segment);
    await sweep(app);
    expect((await archiveKeys(app)).includes(key)).toBe(!areThere);
  },
);
