import { afterEach, beforeAll, beforeEach, describe, expect, jest, test } from "bun:test";

import { bodyChunks, bodyDeadlineMs, readBody } from "../../src/platform/bodies/body.ts";
import { AppError } from "../../src/platform/errors.ts";
import { metric } from "../support/answers.ts";
import { TestApp, type TestSession } from "../support/app.ts";
import { aBatch } from "../support/batches.ts";
import { failure } from "../support/failure.ts";
import { RawConnection, type RawResponse } from "../support/raw-connection.ts";

const BATCH = aBatch();

beforeEach(() => {
  jest.useFakeTimers();
});

afterEach(() => {
  jest.useRealTimers();
});

/** Gives the server and the connections their turns, without a timer and without the database, which has its own. */
async function settle(app: TestApp): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await app.fetch("/livez");
}

describe("a client that stalls amid the body is answered 408, and its connection ends", () => {
  const app = TestApp.forTests();
  let session: TestSession;
  let authorization: string;

  beforeAll(async () => {
    session = await app.aSession();
    authorization = `Bearer ${session.token}`;
  });

  async function stalled(connection: RawConnection): Promise<void> {
    const answers: RawResponse[] = [];
    const answering = connection.response().then((response) => void answers.push(response));
    // Again and again, because the clock counts only while the server waits for the client.
    for (let turn = 0; turn < 50 && answers.length === 0; turn++) {
      await settle(app);
      jest.advanceTimersByTime(10_000);
    }
    await answering;
    const [answer] = answers;
    expect(answer?.status).toBe(408);
    expect(answer?.body.toString()).toBe('{"error":"the body took too long"}');
    expect(answer?.headers.get("connection")).toBe("close");
    expect(answer?.headers.get("access-control-allow-origin")).toBe("*");
    await connection.closed();
  }

  test.each([1000, 500_000])("for a batch of %d bytes", async (bytes) => {
    using connection = await RawConnection.open(app.url);
    connection.head("POST /v1/ios/append", { authorization, "content-length": bytes });
    connection.write(BATCH.subarray(0, 100));
    await stalled(connection);
    jest.useRealTimers();
    expect(await app.batches(session)).toEqual([]);
    expect(await metric(app, "floodgate_inflight_bytes")).toBe(0);
  });

  test("for a form of images", async () => {
    using connection = await RawConnection.open(app.url);
    const type = "multipart/form-data; boundary=x";
    const headers = { authorization, "content-type": type, "content-length": 1000 };
    connection.head("POST /v1/ios/images", headers);
    connection.write('--x\r\nContent-Disposition: form-data; name="projectID"\r\n\r\n72869');
    await stalled(connection);
  });

  test("for the fields of a start", async () => {
    using connection = await RawConnection.open(app.url);
    connection.head("POST /v1/ios/start", { "content-length": 1000 });
    connection.write('{"projectID":');
    await stalled(connection);
  });

  test("for a trickle that no idle timeout would end", async () => {
    using connection = await RawConnection.open(app.url);
    connection.head("POST /v1/ios/append", { authorization, "content-length": BATCH.length });
    for (let second = 0; second < 25; second++) {
      connection.write(BATCH.subarray(second, second + 1));
      await settle(app);
      jest.advanceTimersByTime(1000);
    }
    expect(connection.isClosed).toBe(false);
    await stalled(connection);
  });

  test("but not for one that is slow within reason", async () => {
    using connection = await RawConnection.open(app.url);
    connection.head("POST /v1/ios/append", { authorization, "content-length": BATCH.length });
    connection.write(BATCH.subarray(0, -1));
    await settle(app);
    jest.advanceTimersByTime(29_000);
    jest.useRealTimers();
    connection.write(BATCH.subarray(-1));
    expect((await connection.response()).status).toBe(200);
    expect(await app.batches(session)).toEqual([BATCH]);
  });
});

describe("the time that a body may take", () => {
  test("is half a minute and as long as four bytes a millisecond need", () => {
    expect(bodyDeadlineMs(0)).toBe(30_000);
    expect(bodyDeadlineMs(1_000_000)).toBe(280_000);
  });

  test("is the same for a batch whose length is not declared", async () => {
    const { request, send } = aStalledRequest();
    const outcomes: unknown[] = [];
    const reading = failure(readBody(request, 400_000)).then((error) => outcomes.push(error));
    send(1);
    await turns();
    jest.advanceTimersByTime(29_000);
    await turns();
    expect(outcomes).toEqual([]);
    jest.advanceTimersByTime(3000);
    await reading;
    expect(outcomes).toEqual([expect.objectContaining({ code: "timeout" })]);
  });

  test("does not count what the consumer of an upload takes", async () => {
    const { request, send, end } = aStalledRequest();
    const chunks = bodyChunks(request.body);
    const first = chunks.next();
    send(1);
    expect((await first).value).toEqual(Uint8Array.of(1));
    jest.advanceTimersByTime(300_000);
    const second = chunks.next();
    jest.advanceTimersByTime(29_000);
    send(2);
    expect((await second).value).toEqual(Uint8Array.of(2));
    end();
    expect((await chunks.next()).done).toBe(true);
  });

  test("is up for an upload that has waited longer in all, however it is spread", async () => {
    const { request, send } = aStalledRequest();
    const chunks = bodyChunks(request.body);
    for (let byte = 0; byte < 3; byte++) {
      const next = chunks.next();
      jest.advanceTimersByTime(9_000);
      send(byte);
      expect((await next).value).toEqual(Uint8Array.of(byte));
    }
    const late = failure(chunks.next());
    jest.advanceTimersByTime(9_000);
    expect(await late).toBeInstanceOf(AppError);
    expect(await late).toMatchObject({ code: "timeout", headers: { connection: "close" } });
  });
});

/** Lets what only waits for one another go on. */
async function turns(): Promise<void> {
  for (let turn = 0; turn < 50; turn++) await Promise.resolve();
}

/** A request whose body comes when the test says so. */
function aStalledRequest() {
  let controller: ReadableStreamDefaultController<Uint8Array> | undefined;
  const body = new ReadableStream<Uint8Array>({ start: (given) => void (controller = given) });
  return {
    request: new Request("http://localhost/", { method: "POST", body }),
    send: (byte: number) => controller?.enqueue(Uint8Array.of(byte)),
    end: () => controller?.close(),
  };
}
