import { gzipSync } from "node:zlib";
import { describe, expect, test } from "bun:test";
import { pack as tar } from "tar-stream";

import { TestApp, type TestSession } from "../support/app.ts";
import { concat } from "../support/batches.ts";
import { type FormPart } from "../support/forms.ts";
import {
  RECORDED_CANVAS,
  aFile,
  fileIn,
  frameRecord,
  sendRecorded,
  upload,
} from "../support/images.ts";
import { storedBefore } from "../support/images-before.ts";
import { aProject } from "../support/projects.ts";
import { replayOf, replaysOf } from "../support/replays.ts";
import { aPage } from "../support/web-starts.ts";

const T0 = 1_760_000_000_000;
const CANVAS = "1796052224645_42.webp.frames";
const IS_FRAMES: FormPart = { field: "type", value: "frames" };

const app = TestApp.forTests();

async function aWebSession(): Promise<TestSession> {
  return await aPage(app, await aProject(app, { platform: "web" }));
}

function aFrame(ms: number, text = `frame at ${ms}`): Uint8Array {
  return frameRecord(T0 + ms, Buffer.from(text));
}

async function sent(session: TestSession, parts: FormPart[], path: string): Promise<void> {
  expect((await upload(app, session, parts, { path, fields: [] })).status).toBe(200);
}

/** Sends an archive of screenshots as the iOS SDK does. */
async function screens(session: TestSession, last: number, ...frames: Uint8Array[]): Promise<void> {
  const file = { file: `1-${T0 + last}.gz`, bytes: gzipSync(concat(frames)), type: "gzip" };
  await sent(session, [IS_FRAMES, file], "/v1/mobile/images");
}

/** Sends an archive of screenshots as the Android SDK does. */
async function tarred(session: TestSession, last: number, ...times: number[]): Promise<void> {
  const pack = tar();
  for (const ms of times)
    pack.entry({ name: `${T0}_1_${T0 + ms}.jpeg` }, Buffer.from(`frame at ${ms}`));
  pack.finalize();
  const chunks: Uint8Array[] = [];
  for await (const chunk of pack) if (chunk instanceof Uint8Array) chunks.push(chunk);
  await sent(
    session,
    [aFile(`1-${T0 + last}.tar.gz`, gzipSync(concat(chunks)))],
    "/v1/mobile/images",
  );
}

describe("the file of a canvas element", () => {
  test("is what the tracker sent of it, one upload after the other", async () => {
    const session = await aWebSession();
    for (const form of RECORDED_CANVAS)
      expect((await sendRecorded(app, session, form)).status).toBe(200);
    const files = RECORDED_CANVAS.map(fileIn);
    expect(await replayOf(app, session, CANVAS)).toEqual(concat(files));
    const bytes = files.reduce((sum, file) => sum + file.length, 0);
    expect(await replaysOf(app, session)).toEqual([{ name: CANVAS, bytes }]);
  });

  test("has single frames as records of their times, and those of other elements are apart", async () => {
    const session = await aWebSession();
    const frames = { part: "frames", type: "application/octet-stream" };
    const parts = [
      aFile(`${T0}_7_${T0 + 10}.webp`, "frame at 10"),
      aFile(`${T0}_8_${T0 + 15}.png`, "frame at 15"),
      aFile(`${T0}_7_${T0 + 20}.webp`, "frame at 20"),
    ];
    await sent(session, parts, "/v1/web/images");
    const packed = { file: `${T0}_7.webp.frames`, bytes: aFrame(5), ...frames };
    await sent(session, [IS_FRAMES, packed], "/v1/web/images");
    expect(await replayOf(app, session, `${T0}_7.webp.frames`)).toEqual(
      concat([aFrame(10), aFrame(20), aFrame(5)]),
    );
    expect(await replayOf(app, session, `${T0}_8.png.frames`)).toEqual(aFrame(15));
    expect(await replaysOf(app, session)).toEqual([
      { name: `${T0}_7.webp.frames`, bytes: 68 },
      { name: `${T0}_8.png.frames`, bytes: 23 },
    ]);
  });

  test("belongs to its session alone", async () => {
    const [one, other] = [await app.aSession(), await app.aSession()];
    const name = `${T0}_9.webp.frames`;
    await sent(one, [aFile(name, aFrame(1))], "/v1/web/images");
    await sent(other, [aFile(name, aFrame(2))], "/v1/web/images");
    expect(await replayOf(app, one, name)).toEqual(aFrame(1));
    expect(await replayOf(app, other, name)).toEqual(aFrame(2));
  });
});

describe("the file of a phone's screen", () => {
  test("has all frames in the order of their times, whatever they came in", async () => {
    const session = await app.aSession();
    await screens(session, 60, aFrame(40), aFrame(50), aFrame(60));
    await tarred(session, 30, 30, 10, 20);
    await screens(session, 45, aFrame(45), aFrame(35));
    await sent(
      session,
      [aFile("more.frames", concat([aFrame(55), aFrame(5)]))],
      "/v1/mobile/images",
    );
    const times = [5, 10, 20, 30, 35, 40, 45, 50, 55, 60];
    expect(await replayOf(app, session, "replay.frames")).toEqual(
      concat(times.map((ms) => aFrame(ms))),
    );
    expect(await replaysOf(app, session)).toEqual([{ name: "replay.frames", bytes: null }]);
  });

  test("has what came late in its place, though more lies between than is held", async () => {
    const session = await app.aSession();
    const noise = crypto.getRandomValues(new Uint8Array(2 ** 20));
    const long = (ms: number) => frameRecord(T0 + ms, noise);
    for (const n of [2, 3, 4, 1]) {
      const frames = Array.from({ length: 5 }, (_, nth) => long(n * 100 + nth));
      await screens(session, n * 100 + 4, ...frames);
    }
    const file = await replayOf(app, session, "replay.frames");
    const times = [1, 2, 3, 4].flatMap((n) => [0, 1, 2, 3, 4].map((nth) => n * 100 + nth));
    expect(file?.length).toBe(20 * (noise.length + 12));
    const view = Buffer.from(file ?? []);
    const found = times.map((_, nth) =>
      Number(view.readBigUInt64LE(nth * (noise.length + 12)) - BigInt(T0)),
    );
    expect(found).toEqual(times);
  });

  test("leaves out images that are not frames, and files that have none", async () => {
    const session = await app.aSession();
    await sent(session, [aFile("an image"), aFile(`1-${T0}.jpeg`)], "/v1/mobile/images");
    await sent(session, [IS_FRAMES, aFile("no archive", "frame")], "/v1/mobile/images");
    expect(await replayOf(app, session, "replay.frames")).toBeUndefined();
    await screens(session, 5, aFrame(5));
    expect(await replayOf(app, session, "replay.frames")).toEqual(aFrame(5));
  });

  test("has the beginning of an archive in which a frame claims 4 GB", async () => {
    const session = await app.aSession();
    const name = "x-2.frames";
    const content = concat([aFrame(1), frameRecord(T0 + 2, new Uint8Array(9), 2 ** 32 - 1)]);
    // Uploads of such archives are refused, but the previous version did not look into them.
    await storedBefore(app, session, { name, content });
    await app.sql`update images set kind = 'frames' where name = ${name}`;
    await screens(session, 3, aFrame(3));
    expect(await replayOf(app, session, "replay.frames")).toEqual(concat([aFrame(1), aFrame(3)]));
  });
});
