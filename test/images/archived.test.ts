import { beforeAll, describe, expect, test } from "bun:test";

import { metric, objectOf } from "../support/answers.ts";
import { TestApp, type TestSession } from "../support/app.ts";
import { archiveImages, placesOf } from "../support/archived-images.ts";
import { archiveAll, dropAll, passDays } from "../support/archives.ts";
import { segmentKeys } from "../support/damage.ts";
import { eventually } from "../support/eventually.ts";
import { FaultyObjects } from "../support/faulty-objects.ts";
import {
  RECORDED_CANVAS,
  aFile,
  frameRecord,
  from,
  hashList,
  imageList,
  imageOf,
  sendRecorded,
  upload,
} from "../support/images.ts";
import { aProject } from "../support/projects.ts";
import { Random } from "../support/random.ts";
import { replayOf, replaysOf } from "../support/replays.ts";
import { aPage } from "../support/web-starts.ts";

const SMALL = Buffer.from("pixels");
const LARGE = new Random(4).bytes(2_500_000);
const LONG = new Random(5).bytes(9_000_000);
const CHUNK = 128 * 1024;

/** Ranges around the borders of chunks. */
const RANGES = [
  "bytes=0-0",
  "bytes=0-99",
  "bytes=-5",
  `bytes=${CHUNK - 1}-${CHUNK}`,
  `bytes=${CHUNK}-${2 * CHUNK - 1}`,
  `bytes=${CHUNK + 1}-${3 * CHUNK}`,
  "bytes=2000000-",
  "bytes=100-2100000",
];

async function deleteSegments({ objects }: TestApp): Promise<void> {
  for (const key of await segmentKeys(objects)) await objects.remove(key);
}

describe.each(["files", "s3"] as const)("images in archives in %s", (store) => {
  const app = TestApp.forTests({ store, env: { TRUSTED_PROXIES: "127.0.0.0/8" } });
  let sessions: TestSession[];
  let page: TestSession;

  const get = (name: string, query = "", init: RequestInit = {}) =>
    app.fetch(`/v1/images/${app.project.id}/${encodeURIComponent(name)}${query}`, init);

  /** Returns the files of frames in a session's replay. */
  async function framesOf(session: TestSession | undefined) {
    const files = session === undefined ? [] : await replaysOf(app, session);
    const names = Array.isArray(files) ? files.map(({ name }) => String(name)) : [];
    return await Promise.all(
      names
        .filter((name) => name.endsWith(".frames"))
        .map(async (name) => await replayOf(app, session ?? page, name)),
    );
  }

  /** Returns all that the routes say about the images. */
  async function answers(): Promise<unknown[]> {
    const [first, second] = sessions;
    const paths = ["small", "large", "empty", "two", "ä '{,"].flatMap((name) => [
      { name, query: "" },
      { name, query: `?session=${first?.sessionID}` },
      { name, query: `?session=${second?.sessionID}` },
    ]);
    const whole = paths.map(async ({ name, query }) => await told(get(name, query)));
    const heads = paths.map(
      async ({ name, query }) => await told(get(name, query, { method: "HEAD" })),
    );
    const ranges = ["small", "large"].flatMap((name) =>
      RANGES.map(async (range) => await told(get(name, "", { headers: { range } }))),
    );
    const lists = [...sessions, page].flatMap((session) => [
      imageList(app, session),
      objectOf(app.fetch(`/v1/sessions/${session.sessionID}`)),
      replaysOf(app, session),
    ]);
    const [screens, canvases] = [await framesOf(first), await framesOf(page)];
    expect([screens.length, canvases.length]).toEqual([1, 1]);
    const others = await Promise.all([...whole, ...heads, ...ranges, ...lists, hashList(app)]);
    return [...others, screens, canvases];
  }

  beforeAll(async () => {
    sessions = [await app.aSession(), await app.aSession()];
    const files = [
      [
        aFile("small", SMALL),
        aFile("large", LARGE),
        aFile("empty", ""),
        aFile("two", "one"),
        aFile("1.frames", frameRecord(1_760_000_000_000, LARGE.subarray(0, 9000))),
      ],
      [aFile("small", SMALL), aFile("two", "another"), aFile("ä '{,", "escaped")],
    ];
    for (const [nth, session] of sessions.entries()) {
      const answer = await upload(app, session, files[nth] ?? [], { headers: from(nth) });
      expect(answer.status).toBe(200);
    }
    page = await aPage(app, await aProject(app, { platform: "web" }));
    for (const form of RECORDED_CANVAS)
      expect((await sendRecorded(app, page, form)).status).toBe(200);
  });

  test("are read as before by every route, whole and in ranges, once their segments are gone", async () => {
    await eventually("listed", async () => JSON.stringify(await hashList(app)) !== "[]");
    const before = await answers();
    await archiveImages(app);
    expect(await app.sql`select from image_contents where archive_id is null`).toHaveLength(0);
    await deleteSegments(app);
    expect(await answers()).toEqual(before);
    expect(await imageOf(app, "large")).toEqual(LARGE);
  });

  test("that are sent again are known, and stored once", async () => {
    const series = 'floodgate_images_total{outcome="known"}';
    const known = await metric(app, series);
    const places = await placesOf(app, "large");
    const other = await app.aSession();
    for (const session of [other, ...sessions])
      expect((await upload(app, session, [aFile("large", LARGE)])).status).toBe(200);
    expect(await metric(app, series)).toBe(known + 3);
    expect(await placesOf(app, "large")).toEqual(places);
    expect(await imageOf(app, "large", app.project.id, `?session=${other.sessionID}`)).toEqual(
      LARGE,
    );
  });
});

async function told(asked: Promise<Response>): Promise<unknown> {
  const answer = await asked;
  const headers = Object.fromEntries(answer.headers);
  delete headers["date"];
  delete headers["x-request-id"];
  return { status: answer.status, headers, body: await answer.bytes() };
}

test("a range of a long image reads only the chunks that it is in", async () => {
  const faulty = new FaultyObjects();
  await using app = await TestApp.start({ wrapObjects: faulty.wrap });
  expect((await upload(app, await app.aSession(), [aFile("long", LONG)])).status).toBe(200);
  await archiveImages(app);
  let read = 0;
  faulty.changeRead = (bytes) => {
    read += bytes.length;
    return bytes;
  };
  const path = `/v1/images/${app.project.id}/long`;
  const answer = await app.fetch(path, { headers: { range: "bytes=8000000-8000099" } });
  expect(Buffer.compare(await answer.bytes(), LONG.subarray(8_000_000, 8_000_100))).toBe(0);
  expect(read).toBeLessThan(2 * CHUNK + 100);
  expect(Buffer.compare(await (await app.fetch(path)).bytes(), LONG)).toBe(0);
});

test("segments are deleted once their images are in archives, too, a day later", async () => {
  await using app = await TestApp.start();
  expect((await upload(app, await app.aSession(), [aFile("large", LARGE)])).status).toBe(200);
  await archiveAll(app);
  await passDays(app, 2);
  await dropAll(app);
  expect(Buffer.compare((await imageOf(app, "large")) ?? SMALL, LARGE)).toBe(0);
  await archiveImages(app);
  await dropAll(app);
  expect(await segmentKeys(app.objects)).toEqual([]);
  expect(Buffer.compare((await imageOf(app, "large")) ?? SMALL, LARGE)).toBe(0);
});
