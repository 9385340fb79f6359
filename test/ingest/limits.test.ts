import { gzipSync } from "node:zlib";
import { beforeAll, describe, expect, test } from "bun:test";

import { metric, refusalOf } from "../support/answers.ts";
import { TestApp, type TestSession } from "../support/app.ts";
import { aBatch, encodeBatch, encodeFrame } from "../support/batches.ts";
import { type TestProject, aProject } from "../support/projects.ts";
import { Random } from "../support/random.ts";

const SLACK_BYTES = 64 * 1024;
const BYTES_MAX = 1_000_000 + SLACK_BYTES;
const SMALL_BEACON_BYTES = 4096;
const SMALL_BYTES_MAX = SMALL_BEACON_BYTES + SLACK_BYTES;
const PATHS = ["/v1/ios/append", "/v1/ios/late", "/v1/mobile/i"];
const GZIP = { "content-encoding": "gzip" };
const MIB = 2 ** 20;

const app = TestApp.forTests();
let small: TestProject;

beforeAll(async () => {
  small = await aProject(app, { beaconBytesMax: SMALL_BEACON_BYTES });
});

/** A valid batch of one message with exactly so many bytes in all, which compress as well as the filler does. */
function batchOf(bytes: number, filler: (length: number) => Uint8Array): Uint8Array {
  const overhead = encodeBatch([encodeFrame(103, 1_760_000_000_000, new Uint8Array(bytes))]).length;
  const batch = encodeBatch([encodeFrame(103, 1_760_000_000_000, filler(2 * bytes - overhead))]);
  if (batch.length !== bytes) throw new Error(`made ${batch.length} bytes instead of ${bytes}`);
  return batch;
}

function zeros(length: number): Uint8Array {
  return new Uint8Array(length);
}

/** A body of unknown length. */
function chunked(body: Uint8Array, chunkBytes = 100_000): ReadableStream<Uint8Array> {
  let at = 0;
  return new ReadableStream({
    pull(controller) {
      if (at >= body.length) controller.close();
      else controller.enqueue(body.subarray(at, (at += chunkBytes)));
    },
  });
}

function send(
  { token }: TestSession,
  body: Bun.BodyInit,
  headers: Record<string, string> = {},
  path = "/v1/ios/append",
): Promise<Response> {
  return app.post(path, body, { authorization: `Bearer ${token}`, ...headers });
}

type Refusal = [status: number, text: string];
const OVER: Refusal = [413, `the body is over the limit of ${BYTES_MAX} bytes`];
const OVER_INFLATED: Refusal = [413, `the inflated body is over the limit of ${BYTES_MAX} bytes`];

describe.each(PATHS)("a batch at %s", (path) => {
  test("of exactly the limit is stored, and one byte more is refused", async () => {
    const session = await app.aSession();
    const batch = batchOf(BYTES_MAX, zeros);
    expect((await send(session, batch, {}, path)).status).toBe(200);
    const over = send(session, batchOf(BYTES_MAX + 1, zeros), {}, path);
    expect(await refusalOf(over)).toEqual([
      413,
      `the body is over the limit of ${BYTES_MAX} bytes`,
    ]);
    expect(await app.batches(session)).toEqual([batch]);
  });

  test("in chunks of exactly the limit is stored, and one byte more is refused", async () => {
    const session = await app.aSession();
    const batch = batchOf(BYTES_MAX, zeros);
    expect((await send(session, chunked(batch), {}, path)).status).toBe(200);
    const over = batchOf(BYTES_MAX + 1, zeros);
    expect(await refusalOf(send(session, chunked(over), {}, path))).toEqual(OVER);
    expect(await app.batches(session)).toEqual([batch]);
  });

  test("that inflates to exactly the limit is stored, and one byte more is refused", async () => {
    const session = await app.aSession();
    const batch = batchOf(BYTES_MAX, zeros);
    expect((await send(session, gzipSync(batch), GZIP, path)).status).toBe(200);
    const over = gzipSync(batchOf(BYTES_MAX + 1, zeros));
    expect(await refusalOf(send(session, over, GZIP, path))).toEqual(OVER_INFLATED);
    expect(await app.batches(session)).toEqual([batch]);
  });
});

test("gzip that is over the limit on the wire is refused although it would inflate to less", async () => {
  const session = await app.aSession();
  const random = new Random(1);
  const batch = batchOf(BYTES_MAX - 5, (length) => random.bytes(length));
  const zipped = gzipSync(batch);
  expect(zipped.length).toBeGreaterThan(BYTES_MAX);
  expect(await refusalOf(send(session, zipped, GZIP))).toEqual(OVER);
  expect((await send(session, batch)).status).toBe(200);
});

test("a project's own limit holds for its sessions, plain and inflated", async () => {
  const session = await app.aSession({ projectID: small.projectID });
  const fits = [1, 0].map((less) => batchOf(SMALL_BYTES_MAX - less, zeros));
  expect((await send(session, fits[0] ?? "")).status).toBe(200);
  expect((await send(session, gzipSync(fits[1] ?? ""), GZIP)).status).toBe(200);
  const over = batchOf(SMALL_BYTES_MAX + 1, zeros);
  for (const answer of [send(session, over), send(session, chunked(over))])
    expect(await refusalOf(answer)).toEqual([
      413,
      `the body is over the limit of ${SMALL_BYTES_MAX} bytes`,
    ]);
  expect((await refusalOf(send(session, gzipSync(over), GZIP)))[0]).toBe(413);
  expect(await app.batches(session)).toEqual(fits);
});

describe("a body that is no batch is refused", () => {
  test.each<[string, Uint8Array, Record<string, string>, string]>([
    ["nothing", new Uint8Array(), {}, "the batch is empty"],
    ["nothing, called gzip", new Uint8Array(), GZIP, "the batch is empty"],
    ["gzip of nothing", gzipSync(""), GZIP, "the batch is empty"],
    ["half a gzip", gzipSync(aBatch()).subarray(0, -20), GZIP, "the body is not valid gzip"],
    ["a gzip header", gzipSync(aBatch()).subarray(0, 10), GZIP, "the body is not valid gzip"],
    ["a plain batch called gzip", aBatch(), GZIP, "the body is not valid gzip"],
    ["gzip with a wrong checksum", damaged(gzipSync(aBatch())), GZIP, "the body is not valid gzip"],
  ])("%s", async (_what, body, headers, text) => {
    const session = await app.aSession();
    for (const path of PATHS)
      expect(await refusalOf(send(session, body, headers, path))).toEqual([400, text]);
    expect(await app.batches(session)).toEqual([]);
    expect(await app.batches(session, "?quarantined=true")).toEqual([]);
  });

  test("nothing, in chunks", async () => {
    const session = await app.aSession();
    const answer = send(session, chunked(new Uint8Array()));
    expect(await refusalOf(answer)).toEqual([400, "the batch is empty"]);
  });
});

function damaged(gzip: Uint8Array): Uint8Array {
  const copy = Uint8Array.from(gzip);
  // The checksum is the first of the two last numbers.
  copy[copy.length - 8] = (copy[copy.length - 8] ?? 0) ^ 1;
  return copy;
}

describe("a gzip bomb is refused", () => {
  const member = gzipSync(new Uint8Array(10 * MIB));
  const many = Math.floor(BYTES_MAX / member.length);
  const bombs: [string, Uint8Array][] = [
    ["of one member", gzipSync(new Uint8Array(64 * MIB))],
    ["of a gigabyte in many members", Buffer.concat(Array.from({ length: many }, () => member))],
    ["small enough to be inflated at once", member.subarray(0)],
  ];

  test.each(bombs)("%s", async (_what, bomb) => {
    expect(bomb.length).toBeLessThan(BYTES_MAX);
    const session = await app.aSession();
    expect(await refusalOf(send(session, bomb, GZIP))).toEqual(OVER_INFLATED);
    expect(await app.batches(session, "?quarantined=true")).toEqual([]);
  });

  test("without its size being held, however many come at once", async () => {
    expect(many * 10).toBeGreaterThan(500);
    const session = await app.aSession();
    const [, bomb = new Uint8Array()] = bombs[1] ?? [];
    Bun.gc(true);
    const before = process.memoryUsage().rss;
    const answers = await Promise.all(Array.from({ length: 16 }, () => send(session, bomb, GZIP)));
    expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 413));
    expect(process.memoryUsage().rss - before).toBeLessThan(160 * MIB);
  });
});

test("once all is refused, no bytes are counted as held", async () => {
  expect(await metric(app, "floodgate_inflight_bytes")).toBe(0);
});
