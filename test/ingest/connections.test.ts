import { beforeAll, describe, expect, test } from "bun:test";

import { metric } from "../support/answers.ts";
import { TestApp, type TestSession } from "../support/app.ts";
import { aBatch } from "../support/batches.ts";
import { eventually } from "../support/eventually.ts";
import { RawConnection } from "../support/raw-connection.ts";

const OVER_BYTES = 2_000_000;
const BATCH = aBatch({ messages: 3, bytes: 300 });
const APPEND = "POST /v1/ios/append";

const app = TestApp.forTests();
let session: TestSession;
let authorization: string;

beforeAll(async () => {
  session = await app.aSession();
  authorization = `Bearer ${session.token}`;
});

function chunk(bytes: Uint8Array | string): (string | Uint8Array)[] {
  return [`${bytes.length.toString(16)}\r\n`, bytes, "\r\n"];
}

/** Everything that is stored of a new session after `act` has used its token. */
async function storedAfter(act: (authorization: string) => Promise<void>): Promise<Uint8Array[]> {
  const own = await app.aSession();
  await act(`Bearer ${own.token}`);
  await eventually("no bytes are held", async () => {
    return (await metric(app, "floodgate_inflight_bytes")) === 0;
  });
  return [...(await app.batches(own)), ...(await app.batches(own, "?quarantined=true"))];
}

describe("after a refusal that left the body unread the connection takes the next request", () => {
  const refusals: [string, string, number, Record<string, string>][] = [
    ["a missing token", APPEND, 401, {}],
    ["an unknown path", "POST /v1/ios/nowhere", 404, {}],
    ["a wrong method", "PUT /v1/ios/append", 405, {}],
    ["a wrong content type", "POST /v1/ios/images", 415, { "content-type": "text/plain" }],
  ];

  /** A body that would be requests of its own, were it read as such. */
  const smuggled = "GET /v1/sessions/1 HTTP/1.1\r\nhost: a\r\n\r\n".repeat(1000);

  test.each(refusals)("for %s", async (_what, line, status, extra) => {
    const headers = { ...extra, ...(status === 415 && { authorization }) };
    for (const order of ["body first", "answer first"]) {
      using connection = await RawConnection.open(app.url);
      connection.head(line, { ...headers, "content-length": smuggled.length });
      if (order === "body first") connection.write(smuggled);
      expect((await connection.response()).status).toBe(status);
      if (order === "answer first") connection.write(smuggled);
      connection.head(APPEND, { authorization, "content-length": BATCH.length });
      connection.write(BATCH);
      expect((await connection.response()).status).toBe(200);
      expect(connection.rest).toHaveLength(0);
    }
  });

  test("for a declared length over the limit, whether the body comes or not", async () => {
    for (const order of ["body first", "answer first"]) {
      using connection = await RawConnection.open(app.url);
      connection.head(APPEND, { authorization, "content-length": OVER_BYTES });
      if (order === "body first") connection.write(new Uint8Array(OVER_BYTES));
      expect((await connection.response()).status).toBe(413);
      if (order === "answer first") connection.write(new Uint8Array(OVER_BYTES));
      connection.head("GET /livez");
      const next = await connection.response();
      expect([next.status, next.body.toString()]).toEqual([200, '{"status":"ok"}']);
    }
  });

  test("for a chunked body that is refused half-way", async () => {
    using connection = await RawConnection.open(app.url);
    connection.head(APPEND, { authorization, "transfer-encoding": "chunked" });
    const part = new Uint8Array(100_000);
    for (let bytes = 0; bytes <= OVER_BYTES; bytes += part.length) connection.write(...chunk(part));
    expect((await connection.response()).status).toBe(413);
    connection.write(...chunk(smuggled), ...chunk(""));
    connection.head("GET /livez");
    expect((await connection.response()).status).toBe(200);
    expect(connection.rest).toHaveLength(0);
  });
});

describe.each([300, 200_000])(
  "a body of %d bytes that is cut short leaves nothing behind",
  (bytes) => {
    const batch = aBatch({ messages: 3, bytes });

    test("by closing the connection", async () => {
      const stored = await storedAfter(async (token) => {
        using connection = await RawConnection.open(app.url);
        connection.head(APPEND, { authorization: token, "content-length": batch.length + 1 });
        connection.write(batch);
        await app.fetch("/livez");
      });
      expect(stored).toEqual([]);
    });

    test("by closing it amid chunks", async () => {
      const stored = await storedAfter(async (token) => {
        using connection = await RawConnection.open(app.url);
        connection.head(APPEND, { authorization: token, "transfer-encoding": "chunked" });
        connection.write(...chunk(batch));
        await app.fetch("/livez");
      });
      expect(stored).toEqual([]);
    });

    test("by saying that nothing more will come", async () => {
      const stored = await storedAfter(async (token) => {
        using connection = await RawConnection.open(app.url);
        connection.head(APPEND, { authorization: token, "content-length": batch.length + 1 });
        connection.write(batch);
        connection.end();
        await connection.closed();
      });
      expect(stored).toEqual([]);
    });

    test("by sending what is no chunk", async () => {
      const stored = await storedAfter(async (token) => {
        using connection = await RawConnection.open(app.url);
        connection.head(APPEND, { authorization: token, "transfer-encoding": "chunked" });
        connection.write(...chunk(batch), "no length\r\n");
        await connection.closed();
      });
      expect(stored).toEqual([]);
    });
  },
);

describe("requests whose framing is ambiguous are refused and end the connection", () => {
  test.each<[string, Record<string, string>]>([
    ["two kinds of length", { "content-length": "5", "transfer-encoding": "chunked" }],
    ["a negative length", { "content-length": "-5" }],
    ["a length that is no number", { "content-length": "5a" }],
    ["a length beyond 64 bits", { "content-length": "99999999999999999999" }],
    ["another coding than chunked", { "transfer-encoding": "gzip" }],
  ])("%s", async (_what, headers) => {
    const stored = await storedAfter(async (token) => {
      using connection = await RawConnection.open(app.url);
      connection.head(APPEND, { authorization: token, ...headers });
      connection.write(BATCH);
      expect((await connection.response()).status).toBe(400);
      await connection.closed();
    });
    expect(stored).toEqual([]);
  });
});

describe("one connection", () => {
  test("carries many batches one after another", async () => {
    const batches = Array.from({ length: 20 }, (_, n) => aBatch({ messages: 1, salt: `${n}` }));
    const stored = await storedAfter(async (token) => {
      using connection = await RawConnection.open(app.url);
      for (const batch of batches) {
        connection.head(APPEND, { authorization: token, "content-length": batch.length });
        connection.write(batch);
        expect((await connection.response()).status).toBe(200);
      }
    });
    expect(stored).toEqual(batches);
  });

  test("on which a second request comes before the first answer never misreads either", async () => {
    const batches = ["a", "b"].map((salt) => aBatch({ messages: 1, salt }));
    const statuses: number[] = [];
    const stored = await storedAfter(async (token) => {
      using connection = await RawConnection.open(app.url);
      for (const batch of batches) {
        connection.head(APPEND, { authorization: token, "content-length": batch.length });
        connection.write(batch);
      }
      // Bun may answer both in turn, or end the connection; a client then repeats what has no answer.
      for (const _ of batches)
        statuses.push(
          await connection.response().then(
            ({ status }) => status,
            () => 0,
          ),
        );
    });
    expect(statuses).toHaveLength(2);
    for (const status of statuses) expect([0, 200]).toContain(status);
    const answered = batches.filter((_, index) => statuses[index] === 200);
    expect(stored).toEqual(expect.arrayContaining(answered));
    for (const batch of stored) expect(batches).toContainEqual(batch);
  });

  test("takes a batch in one-byte pieces", async () => {
    const stored = await storedAfter(async (token) => {
      using connection = await RawConnection.open(app.url);
      const head = `${APPEND} HTTP/1.1\r\nhost: a\r\nauthorization: ${token}\r\ncontent-length: ${BATCH.length}\r\n\r\n`;
      for (const byte of Buffer.concat([Buffer.from(head), BATCH])) {
        connection.write(Uint8Array.of(byte));
        await new Promise((resolve) => setImmediate(resolve));
      }
      expect((await connection.response()).status).toBe(200);
    });
    expect(stored).toEqual([BATCH]);
  });
});

describe("a client that waits for 100 Continue", () => {
  test("is told to go on, then answered", async () => {
    const stored = await storedAfter(async (token) => {
      using connection = await RawConnection.open(app.url);
      const headers = { authorization: token, "content-length": BATCH.length };
      connection.head(APPEND, { ...headers, expect: "100-continue" });
      expect((await connection.response()).status).toBe(100);
      connection.write(BATCH);
      expect((await connection.response()).status).toBe(200);
    });
    expect(stored).toEqual([BATCH]);
  });

  test("is refused before it has sent a body over the limit", async () => {
    using connection = await RawConnection.open(app.url);
    const headers = { authorization, "content-length": OVER_BYTES };
    connection.head(APPEND, { ...headers, expect: "100-continue" });
    let answer = await connection.response();
    if (answer.status === 100) answer = await connection.response();
    expect(answer.status).toBe(413);
  });
});
