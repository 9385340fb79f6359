import { afterAll, beforeAll, expect, test } from "bun:test";
import { gzipSync } from "node:zlib";

import { TestApp, type TestSession } from "../support/app.ts";
import { ENCODERS, codingName } from "../support/codings.ts";
import { Random } from "../support/random.ts";

const FILE_BYTES_MAX = 100_000;

let app: TestApp;
let session: TestSession;

beforeAll(async () => {
  app = await TestApp.start({ env: { FILE_SIZE_LIMIT: String(FILE_BYTES_MAX) } });
  session = await app.aSession();
});
afterAll(async () => await app[Symbol.asyncDispose]());

async function upload(body: Uint8Array, coding: string | undefined = "gzip"): Promise<number> {
  const headers = {
    authorization: `Bearer ${session.token}`,
    "content-type": "multipart/form-data; boundary=XX",
    ...(coding !== undefined && { "content-encoding": coding }),
  };
  return (await app.post("/v1/ios/images", body, headers)).status;
}

function form(name: string, content: Uint8Array, preamble = ""): Uint8Array {
  const field = 'Content-Disposition: form-data; name="projectID"';
  const file = `Content-Disposition: form-data; name="f"; filename="${name}"`;
  return Buffer.concat([
    Buffer.from(`${preamble}--XX\r\n${field}\r\n\r\n${app.projectID}\r\n--XX\r\n${file}\r\n\r\n`),
    content,
    Buffer.from("\r\n--XX--\r\n"),
  ]);
}

test("a form that comes as gzip is stored inflated", async () => {
  const content = crypto.getRandomValues(new Uint8Array(50_000));
  expect(await upload(gzipSync(form("packed", content)))).toBe(200);
  const image = await app.fetch(`/v1/images/${app.project.id}/packed`);
  expect(await image.bytes()).toEqual(content);
});

test.each([...Object.keys(ENCODERS), undefined])("so is one that comes as %s", async (encoder) => {
  const content = new Random(5).bytes(50_000);
  const encode = ENCODERS[encoder ?? "gzip"] ?? gzipSync;
  const name = `packed as ${encoder}`;
  const coding = encoder === undefined ? "identity" : codingName(encoder).toUpperCase();
  expect(await upload(encode(form(name, content)), coding)).toBe(200);
  const image = await app.fetch(`/v1/images/${app.project.id}/${encodeURIComponent(name)}`);
  expect(await image.bytes()).toEqual(content);
});

test("zeros may follow it, and nothing else", async () => {
  const packed = gzipSync(form("padded", Buffer.from("an image")));
  expect(await upload(Buffer.concat([packed, Buffer.from("more")]))).toBe(400);
  expect((await app.fetch(`/v1/images/${app.project.id}/padded`)).status).toBe(404);
  expect(await upload(Buffer.concat([packed, new Uint8Array(1000)]))).toBe(200);
  expect((await app.fetch(`/v1/images/${app.project.id}/padded`)).status).toBe(200);
});

test("one in a coding that nobody knows is refused", async () => {
  expect(await upload(form("unknown", Buffer.from("an image")), "lzma")).toBe(415);
});

test("one that is cut short is refused and leaves nothing", async () => {
  const packed = gzipSync(form("cut", crypto.getRandomValues(new Uint8Array(50_000))));
  expect(await upload(packed.subarray(0, 30_000))).toBe(400);
  expect((await app.fetch(`/v1/images/${app.project.id}/cut`)).status).toBe(404);
});

test("one that grows over the limits is refused, in a file or before it", async () => {
  expect(await upload(gzipSync(form("large", new Uint8Array(FILE_BYTES_MAX + 1))))).toBe(413);
  const preamble = `${" ".repeat(5 * FILE_BYTES_MAX)}\r\n`;
  expect(await upload(gzipSync(form("late", new Uint8Array(10), preamble)))).toBe(413);
});
