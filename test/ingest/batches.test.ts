import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { beforeAll, describe, expect, test } from "bun:test";
import { unpackMultiple } from "msgpackr";

import { objectOf, refusalOf } from "../support/answers.ts";
import { KEYED, TestApp, type TestSession } from "../support/app.ts";
import { expectNow } from "../support/now.ts";
import { aBatch, encodeBatch, encodeFrame, encodeMessage } from "../support/batches.ts";
import { FaultyObjects } from "../support/faulty-objects.ts";
import { failure } from "../support/failure.ts";
import { RawConnection } from "../support/raw-connection.ts";
import { readBatches } from "../support/read-batches.ts";

const T0 = 1_760_000_000_000;
const GZIP = { "content-encoding": "gzip" };
const CLICKS = encodeBatch(
  [
    encodeMessage(100, T0 + 5, 'OK "\u2028\n', 10, 20),
    encodeMessage(92, T0 + 6, "plan", "pro"),
    encodeFrame(7, T0 + 7, Uint8Array.of(1, 2, 3)),
  ],
  { firstIndex: 41, timestamp: T0 },
);
const LOGS = aBatch({ messages: 2, salt: "logs" });
const MALFORMED = new TextEncoder().encode("not a batch");

const app = TestApp.forTests();
let session: TestSession;

beforeAll(async () => {
  session = await app.aSession();
  await app.append(session, CLICKS);
  await app.append(session, MALFORMED);
  await app.append(session, gzipSync(LOGS), "/v1/ios/late", GZIP);
});

async function read(accept: string, query = "", { sessionID } = session): Promise<Response> {
  return await app.fetch(`/v1/sessions/${sessionID}/batches${query}`, { headers: { accept } });
}

describe("as application/octet-stream", () => {
  test("every batch comes inflated behind its length, in commit order", async () => {
    const answer = await read("application/octet-stream");
    expect(answer.headers.get("content-type")).toBe("application/octet-stream");
    const expected = Buffer.concat(
      [CLICKS, LOGS].flatMap((batch) => [lengthOf(batch), Buffer.from(batch)]),
    );
    expect(Buffer.from(await answer.bytes())).toEqual(expected);
  });

  test("quarantined ones come alone", async () => {
    const answer = await read("application/octet-stream", "?quarantined=true");
    const expected = Buffer.concat([lengthOf(MALFORMED), MALFORMED]);
    expect(Buffer.from(await answer.bytes())).toEqual(expected);
    expect(await (await read("application/octet-stream", "?quarantined=false")).bytes()).toEqual(
      await (await read("application/octet-stream")).bytes(),
    );
  });
});

describe("as application/msgpack", () => {
  test("every batch is a map with its bytes", async () => {
    const answer = await read("application/msgpack");
    expect(answer.headers.get("content-type")).toBe("application/msgpack");
    const receivedAt = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    expect(unpackMultiple(await answer.bytes())).toEqual([
      { receivedAt, late: false, kind: "mobile", messages: 3, body: Buffer.from(CLICKS) },
      { receivedAt, late: true, kind: "mobile", messages: 2, body: Buffer.from(LOGS) },
    ]);
  });

  test("a quarantined one counts no messages", async () => {
    const answer = await read("application/msgpack", "?quarantined=true");
    expect(unpackMultiple(await answer.bytes())).toEqual([
      expect.objectContaining({ messages: 0, body: Buffer.from(MALFORMED) }),
    ]);
  });
});

describe("as application/json", () => {
  test("messages are decoded by name, and what is unknown is kept", async () => {
    const before = Date.now();
    const own = await app.aSession();
    await app.append(own, CLICKS);
    const answer = await read("application/json", "", own);
    expect(answer.headers.get("content-type")).toBe("application/json");
    const { batches } = await objectOf(answer);
    expect(batches).toEqual([
      {
        receivedAt: expect.any(String),
        late: false,
        kind: "mobile",
        messages: [
          {
            index: 42,
            type: 100,
            name: "Click",
            timestamp: T0 + 5,
            fields: { label: 'OK "\u2028\n', x: 10, y: 20 },
          },
          {
            index: 43,
            type: 92,
            name: "Metadata",
            timestamp: T0 + 6,
            fields: { key: "plan", value: "pro" },
          },
          { index: 44, type: 7, name: "Unknown", timestamp: T0 + 7, body: "AQID" },
        ],
      },
    ]);
    const [first] = Array.isArray(batches) ? batches : [];
    expectNow(Date.parse(first.receivedAt), before);
  });

  test("a quarantined batch is in Base64", async () => {
    expect(await objectOf(read("application/json", "?quarantined=true"))).toEqual({
      batches: [
        { receivedAt: expect.any(String), late: false, kind: "mobile", body: MALFORMED.toBase64() },
      ],
    });
  });
});

test("a batch that another version took for well-formed is in Base64, too", async () => {
  const own = await app.aSession();
  for (const batch of [CLICKS, MALFORMED, LOGS]) await app.append(own, batch);
  await app.sql`update batches set flags = 0 where session_id = ${own.sessionID}`;
  const batches = await readBatches(app, own);
  expect(batches.map(({ messages, body }) => messages?.length ?? body)).toEqual([
    3,
    MALFORMED.toBase64(),
    2,
  ]);
});

test("a batch of a kind that a later version stores is in Base64", async () => {
  const own = await app.aSession();
  await app.append(own, LOGS);
  await app.sql`update batches set flags = 240 where session_id = ${own.sessionID}`;
  expect(await readBatches(app, own)).toMatchObject([{ kind: "unknown", body: LOGS.toBase64() }]);
});

test("a session without batches is an empty document in every form", async () => {
  const own = await app.aSession();
  expect(await objectOf(read("application/json", "", own))).toEqual({ batches: [] });
  for (const accept of ["application/octet-stream", "application/msgpack"])
    expect(await (await read(accept, "", own)).bytes()).toHaveLength(0);
});

describe("the form is chosen by Accept", () => {
  test.each([
    ["*/*", "application/json"],
    ["application/*", "application/json"],
    ["text/html, */*;q=0.1", "application/json"],
    ["application/msgpack;q=0.5, application/octet-stream", "application/octet-stream"],
    ["application/octet-stream;q=0.4, application/msgpack;q=0.5", "application/msgpack"],
    ["APPLICATION/MSGPACK", "application/msgpack"],
  ])("%s gives %s", async (accept, type) => {
    const answer = await read(accept);
    expect([answer.status, answer.headers.get("content-type")]).toEqual([200, type]);
    await answer.bytes();
  });

  test("no Accept gives JSON", async () => {
    using connection = await RawConnection.open(app.url);
    connection.head(`GET /v1/sessions/${session.sessionID}/batches`, KEYED);
    const { status, headers, body } = await connection.response();
    expect([status, headers.get("content-type")]).toEqual([200, "application/json"]);
    expect(JSON.parse(body.toString()).batches).toHaveLength(2);
  });

  test.each(["text/html", "image/*", "application/json;q=0", "application/xml, text/plain"])(
    "%s gets 406",
    async (accept) => {
      const text =
        "only application/json, application/octet-stream, application/msgpack are available";
      expect(await refusalOf(read(accept))).toEqual([406, text]);
    },
  );
});

test.each(["1", "9223372036854775808", "x", "%00"])(
  "the session %s, which is not there, is 404",
  async (sessionID) => {
    const answer = read("*/*", "", { token: "", sessionID });
    expect(await refusalOf(answer)).toEqual([404, "session not found"]);
  },
);

test.each(["yes", "1", ""])("quarantined=%s is refused", async (value) => {
  const text = "quarantined must be true or false";
  expect(await refusalOf(read("*/*", `?quarantined=${value}`))).toEqual([400, text]);
});

describe.each(["files", "s3"] as const)("with objects in %s", (store) => {
  test("1,100 batches of one of two interleaved sessions come in order, through every page", async () => {
    await using own = await TestApp.start({ store });
    const sessions = [await own.aSession(), await own.aSession()];
    const sent = Array.from({ length: 1100 }, (_, n) =>
      aBatch({ messages: 1, bytes: 60 + (n % 700), salt: `${n}` }),
    );
    for (let from = 0; from < sent.length; from += 100)
      await Promise.all(
        sent.slice(from, from + 100).flatMap((batch) =>
          sessions.map(async (one) => {
            expect((await own.append(one, batch)).status).toBe(200);
          }),
        ),
      );
    for (const one of sessions) {
      const batches = await own.batches(one);
      expect(batches).toHaveLength(sent.length);
      const places = batches.map((batch) => sent.findIndex((other) => same(batch, other)));
      // Those of one burst may be in any order, bursts may not.
      expect(places.map((place) => Math.floor(place / 100))).toEqual(
        sent.map((_, index) => Math.floor(index / 100)),
      );
      expect(new Set(places).size).toBe(sent.length);
    }
  });

  test("nothing more is read from the store than the client takes", async () => {
    let reads = 0;
    const objects = new FaultyObjects();
    objects.beforeRead = () => void reads++;
    await using own = await TestApp.start({ store, wrapObjects: objects.wrap });
    const one = await own.aSession();
    for (let n = 0; n < 24; n++)
      await own.append(one, aBatch({ messages: 1, bytes: 900_000, salt: `${n}` }));
    const answer = await own.fetch(`/v1/sessions/${one.sessionID}/batches`, {
      headers: { accept: "application/octet-stream" },
    });
    const reader = answer.body?.getReader();
    expect((await reader?.read())?.value?.length).toBeGreaterThan(0);
    await Bun.sleep(200);
    // The sockets' buffers take some megabytes.
    expect(reads).toBeLessThan(20);
    await reader?.cancel();
    expect(await own.batches(one)).toHaveLength(24);
  });
});

describe("what the store has lost or changed is never taken for the whole", () => {
  test.each<[string, (path: string) => Promise<void>]>([
    ["a lost object", async (path) => await rm(path)],
    ["a changed byte", async (path) => await writeFile(path, flipped(await readFile(path)))],
    ["a cut object", async (path) => await writeFile(path, (await readFile(path)).subarray(0, 60))],
  ])("%s breaks the answer off", async (_what, harm) => {
    await using own = await TestApp.start();
    const one = await own.aSession();
    for (const salt of ["a", "b"])
      await own.append(one, aBatch({ messages: 1, bytes: 2000, salt }));
    const keys = (await Array.fromAsync(own.objects.list("segments/"))).map(({ key }) => key);
    await harm(join(own.config.dataDir, "objects", keys.at(-1) ?? ""));
    expect(await failure(own.batches(one))).toBeInstanceOf(Error);
  });
});

function lengthOf(bytes: Uint8Array): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32LE(bytes.length);
  return length;
}

/** With a byte of the first record changed. */
function flipped(bytes: Buffer): Buffer {
  bytes[200] = (bytes[200] ?? 0) ^ 1;
  return bytes;
}

function same(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
