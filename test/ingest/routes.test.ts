import { brotliCompressSync, gzipSync } from "node:zlib";
import { describe, expect, test } from "bun:test";

import { metric, objectOf, refusalOf, sessionRow } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { aBatch, encodeBatch, encodeMessage } from "../support/batches.ts";
import { ENCODERS, codingName } from "../support/codings.ts";
import { indexState } from "../support/index-state.ts";
import { RawConnection } from "../support/raw-connection.ts";

const VECTOR = new Uint8Array(
  Buffer.from(
    "6b8080b3c19c330100648580b3c19c3305024f4b0a145c8680b3c19c330904706c616e0370726f",
    "hex",
  ),
);
const WEB_BATCH = Buffer.from("5102030bb481e682b9660d68747470733a2f2f612e622f63", "hex");
const PATHS = [
  "/v1/ios/append",
  "/v1/ios/i",
  "/v1/ios/late",
  "/v1/mobile/i",
  "/v1/mobile/late",
] as const;
const GZIP = { "content-encoding": "gzip" };

const app = TestApp.forTests();

describe.each(["files", "s3"] as const)("with objects in %s", (store) => {
  test("a batch is read back byte for byte", async () => {
    await using own = await TestApp.start({ store });
    const session = await own.aSession();
    const batches = [VECTOR, aBatch({ salt: "large" }), aBatch({ messages: 1, bytes: 40 })];
    for (const batch of batches) expect((await own.append(session, batch)).status).toBe(200);
    expect(await own.batches(session)).toEqual(batches);
  });
});

describe.each(PATHS)("a batch at %s", (path) => {
  test("is answered an empty 200 once it can be read back", async () => {
    const session = await app.aSession();
    const answer = await app.append(session, VECTOR, path);
    expect([answer.status, await answer.text()]).toEqual([200, ""]);
    expect(await app.batches(session)).toEqual([VECTOR]);
  });

  test("is taken with whatever content type the SDK sends", async () => {
    const session = await app.aSession();
    const types = ["application/octet-stream", "application/x-www-form-urlencoded"];
    const batches = [...types, "application/json", "text/plain"].map((type) => ({
      type,
      batch: aBatch({ messages: 2, bytes: 200, salt: type }),
    }));
    for (const { type, batch } of batches)
      expect((await app.append(session, batch, path, { "content-type": type })).status).toBe(200);
    expect(await app.batches(session)).toEqual(batches.map(({ batch }) => batch));
  });

  test.each([
    (own: string) => `/ingest${own}`,
    (own: string) => `/${own}`,
    (own: string) => `/ingest/${own}`,
    (own: string) => `//ingest//${own.replaceAll("/", "///")}`,
    (own: string) => `${own}/`,
    (own: string) => `${own}//`,
    (own: string) => `${own}?batch=1_2_3_kyes`,
    (own: string) => `/ingest${own}/?x=//`,
  ])("is found at spelling %# of the path", async (spell) => {
    const session = await app.aSession();
    expect((await app.append(session, VECTOR, spell(path))).status).toBe(200);
    expect(await app.batches(session)).toEqual([VECTOR]);
  });

  test.each(["a", "fg", "abc", "x:80", "floodgate.example.com"])(
    "is found at the host %s",
    async (host) => {
      const session = await app.aSession();
      using connection = await RawConnection.open(app.url);
      const authorization = `Bearer ${session.token}`;
      connection.head(`POST ${path}`, { host, authorization, "content-length": VECTOR.length });
      connection.write(VECTOR);
      expect((await connection.response()).status).toBe(200);
      expect(await app.batches(session)).toEqual([VECTOR]);
    },
  );

  test("comes back inflated, whatever its coding is and however that is written", async () => {
    const session = await app.aSession();
    const sent: Uint8Array[] = [];
    for (const [encoder, encode] of Object.entries(ENCODERS))
      for (const coding of [
        codingName(encoder),
        `identity, ${codingName(encoder).toUpperCase()} `,
      ]) {
        const batch = aBatch({ salt: encoder + coding });
        const headers = { "content-encoding": coding };
        expect((await app.append(session, encode(batch), path, headers)).status).toBe(200);
        sent.push(batch);
      }
    const batch = aBatch({ salt: "without a header" });
    expect((await app.append(session, gzipSync(batch), path)).status).toBe(200);
    const padded = aBatch({ salt: "padded" });
    const padding = Buffer.concat([gzipSync(padded), new Uint8Array(512)]);
    expect((await app.append(session, padding, path, GZIP)).status).toBe(200);
    expect(await app.batches(session)).toEqual([...sent, batch, padded]);
    expect(await app.batches(session, "?quarantined=true")).toEqual([]);
  });

  test("is stored as it came where that is gzip, and inflated otherwise, as every reader of segments knows it", async () => {
    const session = await app.aSession();
    for (const [encoder, encode] of Object.entries(ENCODERS)) {
      const headers = { "content-encoding": codingName(encoder) };
      await app.append(session, encode(aBatch({ salt: encoder })), path, headers);
    }
    const twice = { "content-encoding": "br, gzip" };
    await app.append(session, gzipSync(brotliCompressSync(aBatch())), path, twice);
    const rows = await app.sql`
      select flags & 1 as gzip, length < bytes as smaller from batches where session_id = ${session.sessionID} order by segment_id, "offset"`;
    const inflated = { gzip: 0, smaller: false };
    const gzip = { gzip: 1, smaller: true };
    expect([...rows]).toEqual([gzip, gzip, ...Array.from({ length: 5 }, () => inflated)]);
  });

  test("is refused in a coding that nobody knows, and quarantined when it only begins like gzip", async () => {
    const session = await app.aSession();
    const answer = await app.append(session, aBatch(), path, { "content-encoding": "lzma" });
    expect(answer.headers.get("accept-encoding")).toBe("gzip, deflate, br, zstd");
    expect(answer.headers.get("access-control-allow-origin")).toBe("*");
    expect(await refusalOf(answer)).toEqual([415, 'the content coding "lzma" is not supported']);
    const half = Uint8Array.from(gzipSync(aBatch()).subarray(0, 50));
    expect((await app.append(session, half, path)).status).toBe(200);
    expect(await app.batches(session)).toEqual([]);
    expect(await app.batches(session, "?quarantined=true")).toEqual([half]);
  });
});

describe("the same bytes for one session", () => {
  test("are stored once, however often and wherever they are sent, zipped or plain", async () => {
    const session = await app.aSession();
    const duplicates = 'floodgate_batches_total{outcome="duplicate"}';
    const before = await metric(app, duplicates);
    for (const path of PATHS) {
      expect((await app.append(session, VECTOR, path)).status).toBe(200);
      expect((await app.append(session, gzipSync(VECTOR), path, GZIP)).status).toBe(200);
    }
    const fast = gzipSync(VECTOR, { level: 1 });
    expect((await app.append(session, fast, "/v1/ios/i", GZIP)).status).toBe(200);
    expect(await app.batches(session)).toEqual([VECTOR]);
    expect(await metric(app, duplicates)).toBe(before + 2 * PATHS.length);
  });

  test("are stored once when they arrive all at once", async () => {
    const session = await app.aSession();
    const sent = Array.from({ length: 30 }, () => app.append(session, VECTOR));
    for (const answer of await Promise.all(sent)) expect(answer.status).toBe(200);
    expect(await app.batches(session)).toEqual([VECTOR]);
    const state = await indexState(app.sql, app.objects);
    expect(state).toMatchObject({ distinct: state.batches, missing: [], orphans: [] });
  });

  test("are other bytes for another session", async () => {
    const sessions = [await app.aSession(), await app.aSession()];
    for (const session of sessions) await app.append(session, VECTOR);
    for (const session of sessions) expect(await app.batches(session)).toEqual([VECTOR]);
  });
});

describe("a batch with malformed framing", () => {
  const malformed = [
    WEB_BATCH,
    Buffer.from("not a batch"),
    VECTOR.subarray(0, -1),
    encodeBatch([encodeMessage(90, 1)]),
  ];

  test("is answered 200, counted, and kept apart", async () => {
    const session = await app.aSession();
    const reason = 'floodgate_framing_errors_total{reason="leading_type"}';
    const before = await metric(app, reason);
    expect((await app.append(session, VECTOR)).status).toBe(200);
    for (const batch of malformed)
      expect((await app.append(session, batch, "/v1/mobile/i")).status).toBe(200);
    expect(await app.batches(session)).toEqual([VECTOR]);
    const quarantined = await app.batches(session, "?quarantined=true");
    expect(quarantined).toEqual(malformed.map((batch) => new Uint8Array(batch)));
    expect(await metric(app, reason)).toBe(before + 2);
    const row = await sessionRow(app, session);
    expect(row["batches"]).toMatchObject({ count: 5, quarantined: 4, messages: 2 });
  });

  test("is refused and not stored where framing is strict", async () => {
    await using strict = await TestApp.start({ env: { STRICT_FRAMING: "true" } });
    const session = await strict.aSession();
    const [status, text] = await refusalOf(strict.append(session, WEB_BATCH));
    expect([status, text]).toEqual([400, "The batch is malformed: leading_type."]);
    for (const path of PATHS)
      expect((await strict.append(session, VECTOR.subarray(1), path)).status).toBe(400);
    expect((await strict.append(session, VECTOR)).status).toBe(200);
    expect(await strict.batches(session, "?quarantined=true")).toEqual([]);
    expect(await strict.batches(session)).toEqual([VECTOR]);
  });
});

describe("the reading of one session", () => {
  test("sums up what is stored of it", async () => {
    const session = await app.aSession();
    const large = aBatch({ messages: 7, timestamp: 1_760_000_000_100 });
    await app.append(session, VECTOR);
    await app.append(session, gzipSync(large), "/v1/ios/i", GZIP);
    const row = await objectOf(app.fetch(`/v1/sessions/${session.sessionID}`));
    expect(row["batches"]).toEqual({
      count: 2,
      bytes: VECTOR.length + large.length,
      messages: 9,
      quarantined: 0,
      firstAt: new Date(1_760_000_000_000).toISOString(),
      lastAt: new Date(1_760_000_000_107).toISOString(),
    });
  });

  test("has no times where the client's clock says what no calendar does", async () => {
    const session = await app.aSession();
    const timestamp = 2 ** 53 - 10;
    const batch = encodeBatch([encodeMessage(100, timestamp + 1, "OK", 1, 2)], { timestamp });
    expect((await app.append(session, batch)).status).toBe(200);
    expect(await app.batches(session)).toEqual([batch]);
    const row = await sessionRow(app, session);
    expect(row["batches"]).toMatchObject({ count: 1, firstAt: null, lastAt: null });
  });
});
