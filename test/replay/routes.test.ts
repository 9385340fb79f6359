import { gunzipSync, zstdDecompressSync } from "node:zlib";
import { beforeAll, describe, expect, test } from "bun:test";

import { refusalOf } from "../support/answers.ts";
import { KEYED, TestApp, type TestSession } from "../support/app.ts";
import { concat, encodeBatch, encodeMessage } from "../support/batches.ts";
import { aFile, frameRecord, upload } from "../support/images.ts";
import { Random } from "../support/random.ts";
import { RawConnection } from "../support/raw-connection.ts";
import { WEB_HEAD, askReplay, beginAt, replayOf } from "../support/replays.ts";
import { encodeWebBatch, encodeWebMessage } from "../support/web-batches.ts";

const T0 = 1_760_000_000_000;
const CANVAS = `${T0}_1.webp.frames`;
const BATCHES = 40;

/** A batch of about 30 kB that hardly compresses. */
function aBatch(nth: number): Uint8Array {
  const noise = new Random(nth).bytes(15_000).toHex();
  return encodeWebBatch([encodeWebMessage(14, 3, noise)], { timestamp: T0 + nth });
}

describe.each(["files", "s3"] as const)("a replay file in %s", (store) => {
  const app = TestApp.forTests({ store, env: { COMMIT_BYTES: "65536" } });
  let session: TestSession;
  let whole: Uint8Array;
  let plain: Uint8Array;

  beforeAll(async () => {
    session = await app.aSession();
    await beginAt(app, session, T0);
    const batches = Array.from({ length: BATCHES }, (_, nth) => aBatch(nth));
    for (const batch of batches.toReversed()) await app.append(session, batch, "/v1/web/i");
    await app.append(session, encodeWebBatch([], { version: 4 }), "/v1/web/i");
    plain = concat([frameRecord(T0, Buffer.from("abc")), frameRecord(T0 + 9, new Uint8Array(99))]);
    for (const half of [plain.subarray(0, 15), plain.subarray(15)])
      await upload(app, session, [aFile(CANVAS, half)], { path: "/v1/web/images", fields: [] });
    whole = concat([WEB_HEAD, ...batches]);
    expect(whole.length).toBeGreaterThan(2 ** 20);
  });

  const get = async (name: string, headers: Record<string, string> = {}, method = "GET") =>
    await askReplay(app, session, name, { method, headers });

  test("is sent as bytes that no browser runs and no cache keeps unasked", async () => {
    const answer = await get("devtools.mob");
    expect(Object.fromEntries(answer.headers)).toMatchObject({
      "content-type": "application/octet-stream",
      "cache-control": "private, no-cache",
      "content-security-policy": "default-src 'none'; sandbox",
      "x-content-type-options": "nosniff",
      vary: "accept-encoding",
    });
    expect(await answer.bytes()).toEqual(concat([WEB_HEAD, encodeWebBatch([], { version: 4 })]));
    expect(answer.headers.get("last-modified")).toBe(null);
  });

  test.each<[string | undefined, string | undefined]>([
    ["zstd", "zstd"],
    ["gzip", "gzip"],
    ["zstd, gzip;q=0.5", "zstd"],
    ["gzip, zstd;q=0.5", "gzip"],
    ["br, zstd", "zstd"],
    ["*", "zstd"],
    ["br", undefined],
    ["identity, gzip;q=0.5", undefined],
    ["", undefined],
    [undefined, undefined],
  ])("for Accept-Encoding %p has the coding %p", async (accepted, coding) => {
    for (const [name, bytes] of [
      ["dom.mobs", whole],
      [CANVAS, plain],
    ] as const) {
      using connection = await RawConnection.open(app.url);
      connection.head(`GET /v1/sessions/${session.sessionID}/replay/${name}`, {
        ...KEYED,
        ...(accepted !== undefined && { "accept-encoding": accepted }),
      });
      const { status, headers, body } = await connection.response();
      expect([status, headers.get("content-encoding") ?? undefined]).toEqual([200, coding]);
      const content =
        coding === "zstd" ? zstdDecompressSync(body) : coding === "gzip" ? gunzipSync(body) : body;
      expect(Buffer.compare(content, bytes)).toBe(0);
    }
  });

  test("is 406 where no coding is accepted", async () => {
    const headers = { "accept-encoding": "identity;q=0, br" };
    const text = "only zstd, gzip, identity are available";
    expect(await refusalOf(get("dom.mobs", headers))).toEqual([406, text]);
  });

  test("gives ranges, though the client would take them compressed", async () => {
    const length = whole.length;
    const headers = { "accept-encoding": "gzip, zstd" };
    const ranges = [
      [0, 1],
      [0, 8],
      [7, 9],
      [8, 100],
      [30_000, 30_100],
      [29_000, 61_000],
      [500, length - 500],
      [length - 1, length],
    ] as const;
    for (const [start, end] of ranges) {
      const range = `bytes=${start}-${end - 1}`;
      const answer = await get("dom.mobs", { ...headers, range });
      expect([range, answer.status]).toEqual([range, 206]);
      expect(answer.headers.get("content-range")).toBe(`bytes ${start}-${end - 1}/${length}`);
      expect(Buffer.compare(await answer.bytes(), whole.subarray(start, end))).toBe(0);
    }
    const only = { "accept-encoding": "gzip, identity;q=0", range: "bytes=0-7" };
    const compressed = await get("dom.mobs", only);
    expect([compressed.status, compressed.headers.get("content-encoding")]).toEqual([200, "gzip"]);
    expect(Buffer.compare(await compressed.bytes(), whole)).toBe(0);
    const text = "the range is outside the file";
    expect(await refusalOf(get("dom.mobs", { range: `bytes=${length}-` }))).toEqual([416, text]);
  });

  test("gives every range of a small one", async () => {
    for (let start = 0; start < plain.length; start += 4)
      for (const end of [start + 1, start + 13, plain.length]) {
        const answer = await get(CANVAS, { range: `bytes=${start}-${end - 1}` });
        expect([start, end, await answer.bytes()]).toEqual([
          start,
          end,
          plain.subarray(start, end),
        ]);
      }
  });

  test("need not come again to who has it, until the session sends more", async () => {
    const codings = ["identity", "gzip", "zstd"];
    const own = await app.aSession();
    const ask = async (headers: Record<string, string>) =>
      await askReplay(app, own, "dom.mobs", { headers });
    await app.append(own, aBatch(1), "/v1/web/i");
    const tags: string[] = [];
    for (const coding of codings) {
      const { headers } = await ask({ "accept-encoding": coding });
      tags.push(headers.get("etag") ?? "");
    }
    expect(new Set(tags).size).toBe(3);
    for (const [nth, tag] of tags.entries()) {
      const known = { "accept-encoding": codings[nth] ?? "", "if-none-match": tag };
      const answer = await ask(known);
      expect([answer.status, answer.headers.get("content-type")]).toEqual([304, null]);
      expect(answer.headers.get("etag")).toBe(tag);
    }
    expect((await ask({ range: "bytes=0-7", "if-range": tags[0] ?? "" })).status).toBe(206);
    await app.append(own, aBatch(2), "/v1/web/i");
    for (const headers of [
      { "accept-encoding": "gzip", "if-none-match": tags[1] ?? "" },
      { range: "bytes=0-7", "if-range": tags[0] ?? "" },
      { range: "bytes=0-7", "if-range": new Date().toUTCString() },
    ])
      expect((await ask(headers)).status).toBe(200);
    expect(await refusalOf(ask({ "if-match": tags[0] ?? "" }))).toEqual([
      412,
      "the file is not the one that the request expects",
    ]);
  });

  test("is described by HEAD as by GET, without its bytes", async () => {
    using connection = await RawConnection.open(app.url);
    const head = async (headers: Record<string, string> = {}) => {
      connection.head(`HEAD /v1/sessions/${session.sessionID}/replay/dom.mobs`, {
        ...KEYED,
        ...headers,
      });
      return await connection.response({ bodyless: true });
    };
    const known = await head();
    expect([known.status, known.headers.get("content-length")]).toEqual([
      200,
      String(whole.length),
    ]);
    const coded = await head({ "accept-encoding": "zstd" });
    expect([coded.headers.get("content-encoding"), coded.headers.get("content-length")]).toEqual([
      "zstd",
      null,
    ]);
  });
});

describe("a phone's messages, whose length nobody knows before,", () => {
  const app = TestApp.forTests();

  test("come whole for every range, and compressed", async () => {
    const session = await app.aSession();
    await app.append(session, encodeBatch([encodeMessage(100, T0, "OK", 1, 2)]));
    const file = await replayOf(app, session, "dom.mobs");
    for (const coding of ["identity", "gzip", "zstd"]) {
      const headers = { range: "bytes=0-1", "accept-encoding": coding };
      const answer = await askReplay(app, session, "dom.mobs", { headers });
      expect([answer.status, answer.headers.get("accept-ranges")]).toEqual([200, null]);
      expect(await answer.bytes()).toEqual(file ?? new Uint8Array());
      const known = { ...headers, "if-none-match": answer.headers.get("etag") ?? "" };
      expect((await askReplay(app, session, "dom.mobs", { headers: known })).status).toBe(304);
    }
  });
});

describe("refused is", () => {
  const app = TestApp.forTests();

  test.each(["1", "9223372036854775808", "x", "%00"])("the session %s", async (sessionID) => {
    const none = { sessionID };
    expect(await refusalOf(askReplay(app, none, "dom.mobs"))).toEqual([404, "session not found"]);
    expect(await refusalOf(app.fetch(`/v1/sessions/${sessionID}/replay`))).toEqual([
      404,
      "session not found",
    ]);
  });

  test.each([
    "dom.mob",
    "DOM.MOBS",
    "dom.mobs.zst",
    "replay.frames.zst",
    "1_2.webp.frames",
    "..%2Fdom.mobs",
    "%00",
    "x".repeat(5000),
  ])("the file %s", async (name) => {
    const session = await app.aSession();
    await app.append(session, aBatch(1), "/v1/web/i");
    expect(await refusalOf(askReplay(app, session, name))).toEqual([
      404,
      "the session has no such replay file",
    ]);
  });

  test("a caller without a server key", async () => {
    const { sessionID } = await app.aSession();
    for (const path of ["replay", "replay/dom.mobs"])
      expect((await fetch(`${app.url}/v1/sessions/${sessionID}/${path}`)).status).toBe(403);
  });

  test("skipMissing that is neither true nor false", async () => {
    const session = await app.aSession();
    expect(await refusalOf(askReplay(app, session, "dom.mobs?skipMissing=1"))).toEqual([
      400,
      "skipMissing must be true or false",
    ]);
  });
});
