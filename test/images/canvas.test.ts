import { beforeAll, describe, expect, test } from "bun:test";

import { Tokens } from "../../src/sessions/token.ts";
import { objectOf, refusalOf } from "../support/answers.ts";
import { TestApp, type TestSession } from "../support/app.ts";
import { concat } from "../support/batches.ts";
import { BOUNDARY, type FormPart, MULTIPART, encodePart } from "../support/forms.ts";
import {
  RECORDED_CANVAS,
  frameRecord,
  from,
  imageList,
  imageOf,
  imagesOf,
  sendRecorded,
  upload,
} from "../support/images.ts";
import { aProject } from "../support/projects.ts";
import { aPage } from "../support/web-starts.ts";

const PATH = "/v1/web/images";
const CANVAS = { path: PATH, fields: [] };
const IS_FRAMES: FormPart = { field: "type", value: "frames" };
const NAME = "1796052224645_42.webp.frames";
const FRAME_HEADER_BYTES = 12;

const app = TestApp.forTests();
let session: TestSession;

beforeAll(async () => {
  session = await aPage(app, await aProject(app, { platform: "web" }));
});

/** A record of a frame, which may claim another size than it has. */
function aFrame(bytes: Uint8Array, claimed = bytes.length): Uint8Array {
  return frameRecord(1_760_000_000_000, bytes, claimed);
}

function frames(file: string, bytes: Uint8Array): FormPart {
  return { file, bytes, part: "frames", type: "application/octet-stream" };
}

function snapshot(file: string, bytes: Uint8Array = Buffer.from(file)): FormPart {
  return { file, bytes, part: "snapshot", type: "image/webp" };
}

/** Returns the timestamps of records of frames. Throws unless they fill the file exactly. */
function timesOf(file: Uint8Array): number[] {
  const view = Buffer.from(file);
  const times: number[] = [];
  let at = 0;
  for (; at < view.length; at += FRAME_HEADER_BYTES + view.readUInt32LE(at + 8))
    times.push(Number(view.readBigUInt64LE(at)));
  expect(at).toBe(view.length);
  return times;
}

describe("frames of a canvas", () => {
  test("as they were recorded are stored for their session, also when they are sent twice", async () => {
    const own = await aPage(app, await aProject(app, { platform: "web" }));
    for (const form of [...RECORDED_CANVAS, ...RECORDED_CANVAS])
      expect((await sendRecorded(app, own, form)).status).toBe(200);
    const list = await imageList(app, own);
    expect(list).toMatchObject(
      RECORDED_CANVAS.map(() => ({
        name: NAME,
        kind: "frames",
        contentType: "application/octet-stream",
      })),
    );
    expect(new Set(list.map(({ sha256 }) => sha256)).size).toBe(RECORDED_CANVAS.length);
    const { projectId } = await objectOf(app.fetch(`/v1/sessions/${own.sessionID}`));
    const times: number[] = [];
    for (const { sha256 } of list) {
      const file = await imageOf(app, NAME, Number(projectId), `?sha256=${String(sha256)}`);
      times.push(...timesOf(file ?? new Uint8Array()));
    }
    expect(times).toHaveLength(30);
    expect(new Set(times).size).toBe(30);
  });

  test("may come one by one, as single images", async () => {
    const names = Array.from({ length: 10 }, (_, nth) => `1796052224645_43_${nth}.webp`);
    const parts = names.map((name) => snapshot(name));
    expect((await upload(app, session, parts, CANVAS)).status).toBe(200);
    const list = await imageList(app, session);
    for (const name of names)
      expect(list).toContainEqual(
        expect.objectContaining({ name, kind: "frames", contentType: "image/webp" }),
      );
  });

  test("are never in imagesHashList, however many send them", async () => {
    const project = await aProject(app, { platform: "web" });
    const parts = [snapshot("1_1_1.webp"), frames("1_1.webp.frames", aFrame(Buffer.from("a")))];
    for (const network of [1, 2]) {
      const options = { ...CANVAS, headers: from(network) };
      const own = await aPage(app, project);
      expect((await upload(app, own, parts, options)).status).toBe(200);
    }
    const contents =
      await app.sql`select shared from image_contents where project_id = ${project.id}`;
    expect(contents).toHaveLength(2);
    expect(contents).toMatchObject([{ shared: false }, { shared: false }]);
  });
});

async function postNoForm(token: string): Promise<[number, string]> {
  return await refusalOf(app.post(PATH, "x", { authorization: `Bearer ${token}` }));
}

describe("refused, with nothing of the form stored, is", () => {
  const good = snapshot("good.webp");

  test.each<[number, string, FormPart[], string]>([
    [
      415,
      "a file of frames by another name",
      [IS_FRAMES, frames("1_1.webp", aFrame(Buffer.from("abc")))],
      "a file of frames must be named *.frames",
    ],
    [
      400,
      "a frame that claims 4 GB",
      [IS_FRAMES, frames("2_1.webp.frames", aFrame(Buffer.from("abc"), 2 ** 32 - 1))],
      "the archive is damaged or too large",
    ],
    [
      400,
      "a frame that is cut short",
      [IS_FRAMES, frames("3_1.webp.frames", aFrame(Buffer.from("abc"), 4))],
      "the archive is damaged or too large",
    ],
    [
      400,
      "half a frame's head",
      [IS_FRAMES, frames("4_1.webp.frames", new Uint8Array(11))],
      "the archive is damaged or too large",
    ],
    [
      400,
      "an eleventh image",
      Array.from({ length: 11 }, (_, nth) => snapshot(`5_${nth}.webp`)),
      "the form has more than 10 images",
    ],
    [400, "a form without files", [IS_FRAMES], "the form has no file"],
    ...["a/b.webp", "../1_1_1.webp", "a\\\\b.webp", "/etc/passwd", "a\0b", "x".repeat(256)].map(
      (name): [number, string, FormPart[], string] => [
        400,
        `the file name ${JSON.stringify(name.slice(0, 20))}`,
        [good, snapshot(name)],
        "",
      ],
    ),
  ])("%d for %s", async (status, _what, parts, text) => {
    const before = await imagesOf(app, session);
    const [answered, problem] = await refusalOf(upload(app, session, parts, CANVAS));
    expect(answered).toBe(status);
    expect(problem).toContain(text);
    expect(await imagesOf(app, session)).toEqual(before);
  });

  test("a form of 10,000 parts", async () => {
    const part = concat(encodePart({ field: "x", value: "" }));
    const body = concat([
      ...Array.from({ length: 10_000 }, () => part),
      Buffer.from(`--${BOUNDARY}--`),
    ]);
    const headers = { authorization: `Bearer ${session.token}`, ...MULTIPART };
    expect((await refusalOf(app.post(PATH, body, headers)))[0]).toBe(400);
  });

  test("415 what is no form, but 401 comes first", async () => {
    const sessionId = BigInt(session.sessionID);
    const sign = (secret: string, expiresInMs: number) =>
      new Tokens([secret]).sign({ sessionId, delay: 0, expiresAt: Date.now() + expiresInMs });
    expect((await postNoForm(session.token))[0]).toBe(415);
    expect(await postNoForm(sign("other", 60_000))).toEqual([401, "wrong token sign"]);
    expect(await postNoForm(sign("test-secret", -1000))).toEqual([401, "token just expired"]);
    expect(await postNoForm(sign("test-secret", -60_000))).toEqual([401, "token expired"]);
  });

  test("a project of the form that is not the session's", async () => {
    const fields: FormPart[] = [{ field: "projectKey", value: app.project.projectKey }];
    const answer = upload(app, session, [good], { path: PATH, fields });
    expect(await refusalOf(answer)).toEqual([403, "the session belongs to another project"]);
  });
});
