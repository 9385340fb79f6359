import { gzipSync } from "node:zlib";
import { describe, expect, test } from "bun:test";
import { unpackMultiple } from "msgpackr";

import { metric, objectOf, refusalOf, sessionRow } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { aBatch } from "../support/batches.ts";
import { kindsOf } from "../support/read-batches.ts";
import { ASSETS, PLAYER, SPLIT, WEB_VECTORS } from "../support/tracker-requests.ts";
import { encodeWebBatch, encodeWebFrame, encodeWebMessage } from "../support/web-batches.ts";

const PATH = "/v1/web/i";
const VISUAL = { datatype: "visual" };
const GZIP = { "content-encoding": "gzip" };
const BYTES_MAX = 1_000_000 + 64 * 1024;
const MIB = 2 ** 20;

const app = TestApp.forTests();

describe("a batch of the web tracker", () => {
  test.each([
    PATH,
    `/ingest${PATH}`,
    `//ingest/${PATH}`,
    `${PATH}/`,
    `/ingest${PATH}?batch=3_4_59_kyes_network:503`,
  ])("at %s is answered an empty 200 once it can be read back", async (path) => {
    const session = await app.aSession();
    const answer = await app.append(session, WEB_VECTORS.move, path, { datatype: "player" });
    expect([answer.status, await answer.text()]).toEqual([200, ""]);
    expect(answer.headers.get("access-control-allow-origin")).toBe("*");
    expect(await app.batches(session)).toEqual([WEB_VECTORS.move]);
  });

  test("is of the kind that its header says, whatever DataType says", async () => {
    const session = await app.aSession();
    for (const datatype of ["player", "assets", "analytics", "all", "x"])
      for (const version of [1, 2, 3, 4, 5]) {
        const batch = encodeWebBatch([], { version, location: datatype });
        expect((await app.append(session, batch, PATH, { datatype })).status).toBe(200);
      }
    const one = ["web", "player", "assets", "devtools", "analytics"];
    expect(await kindsOf(app, session)).toEqual([...one, ...one, ...one, ...one, ...one]);
    const bare = await app.aSession();
    expect((await app.append(bare, WEB_VECTORS.devtools, PATH)).status).toBe(200);
    expect(await kindsOf(app, bare)).toEqual(["devtools"]);
  });

  test("is stored once, plain or compressed, and as it came where that is gzip", async () => {
    const session = await app.aSession();
    const large = encodeWebBatch([encodeWebMessage(61, 1, "a".repeat(50_000), "https://a.b")]);
    for (const headers of [GZIP, GZIP, {}]) {
      const body = headers === GZIP ? gzipSync(large) : large;
      expect((await app.append(session, body, PATH, headers)).status).toBe(200);
    }
    expect(await app.batches(session)).toEqual([large]);
    const [row] = await app.sql`select flags from batches where session_id = ${session.sessionID}`;
    expect(row).toEqual({ flags: 17 });
  });

  test("reads back as messages with their header in JSON, and with its kind in MessagePack", async () => {
    const session = await app.aSession();
    await app.append(session, WEB_VECTORS.analytics, PATH);
    const read = (accept: string) =>
      app.fetch(`/v1/sessions/${session.sessionID}/batches`, { headers: { accept } });
    const timestamp = 1_760_000_000_030;
    const index = 3 * 2 ** 32 + 8;
    const [type, name] = [27, "CustomEvent"];
    const location = "https://a.b/c";
    expect(await objectOf(read("application/json"))).toEqual({
      batches: [
        {
          receivedAt: expect.any(String),
          late: false,
          kind: "analytics",
          header: { version: 5, pageNo: 3, firstIndex: 8, timestamp, location },
          messages: [
            { index: index + 1, type: 0, name: "Timestamp", timestamp, fields: { ts: timestamp } },
            { index: index + 2, type: 118, name: "TabData", timestamp, fields: { tabId: "tab1" } },
            { index: index + 3, type, name, timestamp, fields: { name: "ev", payload: "{}" } },
          ],
        },
      ],
    });
    expect(unpackMultiple(await (await read("application/msgpack")).bytes())).toEqual([
      {
        receivedAt: expect.any(String),
        late: false,
        kind: "analytics",
        messages: 3,
        body: Buffer.from(WEB_VECTORS.analytics),
      },
    ]);
    const row = await sessionRow(app, session);
    const at = new Date(timestamp).toISOString();
    expect(row["batches"]).toMatchObject({ count: 1, messages: 3, firstAt: at, lastAt: at });
  });

  test("has no times where the client's clock says what no calendar does", async () => {
    const session = await app.aSession();
    for (const timestamp of [-(2 ** 52), -1, 2 ** 52 - 1]) {
      const batch = encodeWebBatch([], { timestamp });
      expect((await app.append(session, batch, PATH)).status).toBe(200);
    }
    const row = await sessionRow(app, session);
    expect(row["batches"]).toMatchObject({ count: 3, firstAt: null, lastAt: null });
  });

  test("is accepted though empty, and nothing is stored", async () => {
    const session = await app.aSession();
    for (const [body, headers] of [
      ["", {}],
      [gzipSync(""), GZIP],
    ] as const)
      expect((await app.append(session, Buffer.from(body), PATH, headers)).status).toBe(200);
    expect(await kindsOf(app, session)).toEqual([]);
  });
});

describe("a preflight", () => {
  test.each([PATH, `/ingest${PATH}?batch=1_2_3_kyes`, `/ingest${PATH}?x`])(
    "at %s allows what the tracker sends",
    async (path) => {
      const answer = await app.fetch(path, {
        method: "OPTIONS",
        headers: {
          origin: "https://shop.example",
          "access-control-request-method": "POST",
          "access-control-request-headers": "authorization,content-encoding,datatype",
        },
      });
      expect([answer.status, answer.headers.get("access-control-allow-origin")]).toEqual([
        204,
        "*",
      ]);
      const allowed = answer.headers.get("access-control-allow-headers")?.toLowerCase() ?? "";
      for (const name of ["authorization", "content-encoding", "datatype"])
        expect(allowed).toContain(name);
    },
  );
});

describe("what is no batch of the web tracker is quarantined", () => {
  test.each<[string, Uint8Array]>([
    ["a mobile batch", aBatch()],
    ["text", Buffer.from("not a batch")],
    ["a header of the next tracker", Uint8Array.of(86, 2, 0, 0, 0, 0)],
    ["a type that only servers write", encodeWebBatch([encodeWebMessage(1, 1)])],
  ])("%s", async (_what, body) => {
    const session = await app.aSession();
    expect((await app.append(session, body, PATH)).status).toBe(200);
    expect(await app.batches(session)).toEqual([]);
    expect(await app.batches(session, "?quarantined=true")).toEqual([new Uint8Array(body)]);
  });

  test("or refused where framing is strict, with both halves", async () => {
    await using strict = await TestApp.start({ env: { STRICT_FRAMING: "true" } });
    const session = await strict.aSession();
    const text = "The batch is malformed: leading_type.";
    expect(await refusalOf(strict.append(session, aBatch(), PATH))).toEqual([400, text]);
    const broken = Buffer.concat([PLAYER, ASSETS.subarray(0, -1)]);
    const answer = strict.append(session, broken, `${PATH}?split=${SPLIT}`, VISUAL);
    expect(await refusalOf(answer)).toEqual([400, "The batch is malformed: overrun."]);
    expect(await strict.batches(session)).toEqual([]);
  });
});

describe("a body that cannot be taken is 413", () => {
  test.each<[string, Uint8Array, string]>([
    ["half a gzip", gzipSync(WEB_VECTORS.move).subarray(0, -9), "the body is not valid gzip"],
    ["a plain batch called gzip", WEB_VECTORS.move, "the body is not valid gzip"],
    [
      "a bomb",
      gzipSync(new Uint8Array(64 * MIB)),
      `the inflated body is over the limit of ${BYTES_MAX} bytes`,
    ],
  ])("%s", async (_what, body, text) => {
    const session = await app.aSession();
    const answer = await app.append(session, body, PATH, GZIP);
    expect(answer.headers.get("access-control-allow-origin")).toBe("*");
    expect(await refusalOf(answer)).toEqual([413, text]);
    expect(await kindsOf(app, session, "?quarantined=true")).toEqual([]);
  });

  test("one byte over the limit, and one of the limit is stored", async () => {
    const session = await app.aSession();
    const overhead = encodeWebBatch([encodeWebFrame(61, new Uint8Array())]).length;
    const batch = (bytes: number) =>
      encodeWebBatch([encodeWebFrame(61, new Uint8Array(bytes - overhead))]);
    const text = `the body is over the limit of ${BYTES_MAX} bytes`;
    const over = app.append(session, batch(BYTES_MAX + 1), PATH);
    expect(await refusalOf(over)).toEqual([413, text]);
    expect((await app.append(session, batch(BYTES_MAX), PATH)).status).toBe(200);
    expect((await app.batches(session)).map(({ length }) => length)).toEqual([BYTES_MAX]);
  });

  test("a gigabyte in many members, with memory flat", async () => {
    const member = gzipSync(new Uint8Array(10 * MIB));
    const bomb = Buffer.concat(Array.from({ length: 100 }, () => member));
    expect(bomb.length).toBeLessThan(BYTES_MAX);
    const session = await app.aSession();
    Bun.gc(true);
    const before = process.memoryUsage().rss;
    const sent = Array.from({ length: 16 }, () => app.append(session, bomb, PATH, GZIP));
    for (const { status } of await Promise.all(sent)) expect(status).toBe(413);
    expect(process.memoryUsage().rss - before).toBeLessThan(160 * MIB);
  });
});

test("a session that is not recorded is answered 200, and its split is checked", async () => {
  const session = await app.aSession({ doNotRecord: true });
  const discarded = 'floodgate_batches_total{outcome="discarded"}';
  const before = await metric(app, discarded);
  const path = `${PATH}?split=${SPLIT}`;
  expect((await app.append(session, WEB_VECTORS.visual, path, VISUAL)).status).toBe(200);
  expect((await app.append(session, WEB_VECTORS.visual, PATH, VISUAL)).status).toBe(400);
  expect(await metric(app, discarded)).toBe(before + 2);
  expect(await kindsOf(app, session)).toEqual([]);
});
