import * as fc from "fast-check";
import { beforeAll, describe, expect, test } from "bun:test";

import { refusalOf } from "../support/answers.ts";
import { KEYED, TestApp } from "../support/app.ts";
import { aFile, upload } from "../support/images.ts";
import { Random } from "../support/random.ts";
import { RawConnection } from "../support/raw-connection.ts";

const DIGITS = "0123456789";
const LARGE = new Random(4).bytes(2_500_000);
const MEDIUM = LARGE.subarray(0, 300_000);

describe.each(["files", "s3"] as const)("an image in %s", (store) => {
  const app = TestApp.forTests({ store, env: { COMMIT_BYTES: "65536" } });

  beforeAll(async () => {
    const session = await app.aSession();
    const parts = [aFile("digits", DIGITS), aFile("medium", MEDIUM), aFile("large", LARGE)];
    const answer = await upload(app, session, [...parts, aFile("empty", "")]);
    expect(answer.status).toBe(200);
  });

  function get(name: string, headers: Record<string, string> = {}, method = "GET") {
    return app.fetch(`/v1/images/${app.project.id}/${name}`, { method, headers });
  }

  test("comes whole with its length, type and tag", async () => {
    const answer = await get("digits");
    expect([answer.status, await answer.text()]).toEqual([200, DIGITS]);
    expect(Object.fromEntries(answer.headers)).toMatchObject({
      "content-length": "10",
      "content-type": "image/png",
      "accept-ranges": "bytes",
      "cache-control": "private, immutable, max-age=2628000",
      "x-content-type-options": "nosniff",
      "content-security-policy": "default-src 'none'; sandbox",
      etag: expect.stringMatching(/^"[\w-]+"$/),
    });
    expect(await (await get("medium")).bytes()).toEqual(MEDIUM);
    expect(await (await get("large")).bytes()).toEqual(LARGE);
    const empty = await get("empty");
    expect([empty.status, empty.headers.get("content-length")]).toEqual([200, "0"]);
  });

  test("need not come again to who has it", async () => {
    const etag = (await get("digits")).headers.get("etag") ?? "";
    for (const known of [etag, `"other", ${etag}`, `W/${etag}`, "*"]) {
      const answer = await get("digits", { "if-none-match": known });
      expect([answer.status, await answer.text()]).toEqual([304, ""]);
      expect(answer.headers.get("etag")).toBe(etag);
    }
    for (const other of ['"other"', etag.replaceAll('"', "")])
      expect((await get("digits", { "if-none-match": other })).status).toBe(200);
    const tags = await Promise.all(
      ["digits", "medium", "large", "empty"].map(async (name) =>
        (await get(name)).headers.get("etag"),
      ),
    );
    expect(new Set(tags).size).toBe(4);
  });

  test.each([
    ["bytes=0-0", "0", "0-0"],
    ["bytes=2-5", "2345", "2-5"],
    ["bytes=7-", "789", "7-9"],
    ["bytes=-3", "789", "7-9"],
    ["bytes=-99", DIGITS, "0-9"],
    ["bytes=9-99", "9", "9-9"],
    ["bytes=0-", DIGITS, "0-9"],
    ["BYTES=2-5", "2345", "2-5"],
    ["bytes=8-99999999999999999999", "89", "8-9"],
  ])("gives %s", async (range, text, place) => {
    const answer = await get("digits", { range });
    expect([answer.status, await answer.text()]).toEqual([206, text]);
    expect(answer.headers.get("content-range")).toBe(`bytes ${place}/10`);
    expect(answer.headers.get("content-length")).toBe(String(text.length));
  });

  test.each(["bytes=5-2", "bytes=0-1,3-4", "lines=0-1", "bytes=a-b", "bytes=-", "bytes", "0-5"])(
    "comes whole for %s",
    async (range) => {
      const answer = await get("digits", { range });
      expect([answer.status, await answer.text()]).toEqual([200, DIGITS]);
      expect(answer.headers.get("content-range")).toBe(null);
    },
  );

  test.each(["bytes=10-", "bytes=10-20", "bytes=-0"])("has no %s", async (range) => {
    const answer = await get("digits", { range });
    expect(answer.headers.get("content-range")).toBe("bytes */10");
    expect(await refusalOf(answer)).toEqual([416, "the range is outside the file"]);
    expect((await get("empty", { range })).status).toBe(416);
  });

  test("gives a range only while it is the same image", async () => {
    const etag = (await get("digits")).headers.get("etag") ?? "";
    const part = await get("digits", { range: "bytes=2-3", "if-range": etag });
    expect([part.status, await part.text()]).toEqual([206, "23"]);
    for (const other of ['"other"', `W/${etag}`, "Sun, 22 Nov 2026 02:51:09 GMT"]) {
      const whole = await get("digits", { range: "bytes=2-3", "if-range": other });
      expect([whole.status, await whole.text()]).toEqual([200, DIGITS]);
    }
  });

  test("tells when it was stored, and that counts as its ETag does", async () => {
    const { headers } = await get("digits");
    const [etag, date] = [headers.get("etag") ?? "", headers.get("last-modified") ?? ""];
    expect(Math.abs(Date.now() - Date.parse(date))).toBeLessThan(60_000);
    const before = new Date(Date.parse(date) - 1000).toUTCString();
    for (const [conditions, status, headStatus] of [
      [{ "if-match": etag }, 206, 200],
      [{ "if-match": `"other", ${etag}` }, 206, 200],
      [{ "if-match": "*" }, 206, 200],
      [{ "if-match": `W/${etag}` }, 412, 412],
      [{ "if-match": '"other"' }, 412, 412],
      [{ "if-unmodified-since": date }, 206, 200],
      [{ "if-unmodified-since": before }, 412, 412],
      [{ "if-unmodified-since": "no date" }, 206, 200],
      [{ "if-modified-since": date }, 304, 304],
      [{ "if-modified-since": before }, 206, 200],
      [{ "if-none-match": '"other"', "if-modified-since": date }, 206, 200],
      [{ "if-range": date }, 206, 200],
      [{ "if-range": before }, 200, 200],
    ] as const) {
      const answer = await get("digits", { ...conditions, range: "bytes=2-3" });
      const head = await get("digits", { ...conditions, range: "bytes=2-3" }, "HEAD");
      expect([conditions, answer.status, head.status]).toEqual([conditions, status, headStatus]);
      if (status === 412)
        expect(await refusalOf(answer)).toEqual([
          412,
          "the file is not the one that the request expects",
        ]);
    }
    const had = await get("digits", { "if-none-match": etag });
    expect(had.headers.get("cache-control")).toBe("private, immutable, max-age=2628000");
    expect([had.headers.get("last-modified"), had.headers.get("content-type")]).toEqual([
      date,
      null,
    ]);
  });

  test("gives any range of what lies in many chunks", async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(MEDIUM.length - 1), fc.nat(200_000), async (first, more) => {
        const answer = await get("medium", { range: `bytes=${first}-${first + more}` });
        expect(answer.status).toBe(206);
        const expected = MEDIUM.subarray(first, first + more + 1);
        expect(Buffer.compare(await answer.bytes(), expected)).toBe(0);
      }),
      { numRuns: 40 },
    );
    const long = await get("large", { range: "bytes=100000-2200000" });
    expect(Buffer.compare(await long.bytes(), LARGE.subarray(100_000, 2_200_001))).toBe(0);
  });

  test("is described by HEAD as by GET, without its bytes", async () => {
    using connection = await RawConnection.open(app.url);
    for (const name of ["digits", "medium"]) {
      connection.head(`HEAD /v1/images/${app.project.id}/${name}`, KEYED);
      const { status, headers } = await connection.response({ bodyless: true });
      const whole = await get(name);
      expect(status).toBe(200);
      for (const header of ["content-length", "content-type", "etag", "accept-ranges"])
        expect([header, headers.get(header)]).toEqual([header, whole.headers.get(header)]);
      expect(Number(headers.get("content-length"))).toBe((await whole.bytes()).length);
    }
    connection.head(`HEAD /v1/images/${app.project.id}/none`, KEYED);
    expect((await connection.response({ bodyless: true })).status).toBe(404);
    connection.head("GET /livez");
    expect((await connection.response()).body.toString()).toBe('{"status":"ok"}');
  });

  test("is not found under another name or project", async () => {
    for (const path of [`${app.project.id}/other`, `${app.project.id + 1}/digits`, "0/digits"])
      expect(await refusalOf(app.fetch(`/v1/images/${path}`))).toEqual([404, "image not found"]);
  });

  test.each([
    ["x/digits", "projectId must be a whole number from 0 to 2147483647"],
    ["-1/digits", "projectId must be a whole number from 0 to 2147483647"],
    ["2147483648/digits", "projectId must be a whole number from 0 to 2147483647"],
    ["1/%00", "hash must be text of 1 to 255 characters"],
    ["1/%E0%A4%A", "hash must be text of 1 to 255 characters"],
    [`1/${"x".repeat(256)}`, "hash must be text of 1 to 255 characters"],
  ])("is refused at %s", async (path, text) => {
    expect(await refusalOf(app.fetch(`/v1/images/${path}`))).toEqual([400, text]);
  });
});

test("only image types are served as such, so that no browser runs what was uploaded", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  const sent = [
    ["image/webp", "image/webp"],
    ["image/svg+xml", "image/svg+xml"],
    ["image/png; charset=x", "image/png"],
    ["text/html", "application/octet-stream"],
    ["application/javascript", "application/octet-stream"],
    ["image/", "application/octet-stream"],
    ["image/<script>", "application/octet-stream"],
    ["gzip", "application/octet-stream"],
  ] as const;
  const parts = sent.map(([type], n) => ({ file: `type ${n}`, bytes: Buffer.from("x"), type }));
  expect((await upload(app, session, parts)).status).toBe(200);
  for (const [n, [, served]] of sent.entries()) {
    const { headers } = await app.fetch(`/v1/images/${app.project.id}/type%20${n}`);
    expect([n, headers.get("content-type")]).toEqual([n, served]);
    expect(headers.get("x-content-type-options")).toBe("nosniff");
    expect(headers.get("content-security-policy")).toBe("default-src 'none'; sandbox");
  }
});
