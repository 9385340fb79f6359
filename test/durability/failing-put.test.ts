import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { randomBytes } from "node:crypto";

import { readFooter } from "../../src/log/footer.ts";
import { metric } from "../support/answers.ts";
import { type TestSession, TestApp } from "../support/app.ts";
import { aBatch } from "../support/batches.ts";
import { eventually, timed } from "../support/eventually.ts";
import {
  FaultyObjects,
  type PutScript,
  fails,
  findsOtherBytes,
  storesThenFails,
  succeeds,
  waitsFor,
} from "../support/faulty-objects.ts";
import { indexState } from "../support/index-state.ts";
import { uploadImage } from "../support/images.ts";

// The first run on a machine may install the S3 server.
setDefaultTimeout(120_000);

const DEADLINE_MS = 700;
const PUTS_AT_ONCE = 8;

describe.each(["files", "s3"] as const)("on %s, one failing PUT never becomes a 200", (store) => {
  test("before a second PUT has stored the batch, once", async () => {
    await using t = await aFaultyApp(store);
    t.objects.next.push(fails);
    expect((await t.app.append(t.session, aBatch())).status).toBe(200);
    expect(t.objects.puts).toHaveLength(2);
    expect(t.objects.puts[0]?.key).toBe(t.objects.puts[1]?.key ?? "none");
    expect(await t.app.batches(t.session)).toEqual([aBatch()]);
    expect(await state(t)).toMatchObject({ batches: 1, orphans: [], missing: [] });
  });

  test("when it fails until the deadline: 503 with Retry-After, and nothing is there", async () => {
    await using t = await aFaultyApp(store);
    const before = await state(t);
    t.objects.otherwise = fails;
    const { result: response, ms, wallMs } = await timed(() => t.app.append(t.session, aBatch()));
    await expectRefused(response);
    expect(wallMs).toBeGreaterThan(DEADLINE_MS - 50);
    expect(ms).toBeLessThan(DEADLINE_MS + 1000);
    expect(t.objects.puts.length).toBeGreaterThan(2);
    expect(await t.app.batches(t.session)).toEqual([]);
    expect(await state(t)).toEqual(before);

    t.objects.otherwise = succeeds;
    expect((await t.app.append(t.session, aBatch())).status).toBe(200);
    expect(await t.app.batches(t.session)).toEqual([aBatch()]);
    expect(await state(t)).toMatchObject({ batches: 1, orphans: [], missing: [] });
  });

  test("when the object is stored and the answer lost: 200 after a retry, and one object", async () => {
    await using t = await aFaultyApp(store);
    const before = await state(t);
    t.objects.next.push(storesThenFails, storesThenFails);
    expect((await t.app.append(t.session, aBatch())).status).toBe(200);
    expect(t.objects.puts).toHaveLength(3);
    expect(await state(t)).toEqual({
      ...before,
      batches: 1,
      distinct: 1,
      segments: before.segments + 1,
    });
    expect(await t.app.batches(t.session)).toEqual([aBatch()]);
  });

  test("when other bytes have the key: 503, and nothing is indexed", async () => {
    await using t = await aFaultyApp(store);
    t.objects.otherwise = findsOtherBytes;
    await expectRefused(await t.app.append(t.session, aBatch()));
    expect(await state(t)).toMatchObject({ batches: 0, missing: [] });
    expect(await t.app.batches(t.session)).toEqual([]);
  });
});

test("all requests that wait for one segment get one outcome", async () => {
  await using t = await aFaultyApp();
  for (const outcome of [200, 503]) {
    const gate = Promise.withResolvers<void>();
    const busy = await fillThePutSlots(t, gate.promise, `${outcome}`);
    // The slots are taken, so these share the segment that stays open.
    const shared = Array.from({ length: 60 }, (_, i) =>
      t.app.append(t.session, aBatch({ messages: 3, bytes: 300, salt: `shared${outcome}-${i}` })),
    );
    await eventually(
      "the requests are held",
      async () => (await metric(t.app, "floodgate_inflight_bytes")) > 60 * 300 + PUTS_AT_ONCE * 200,
    );
    t.objects.puts.length = 0;
    t.objects.otherwise = outcome === 200 ? succeeds : fails;
    if (outcome === 200) t.objects.next.push(fails, storesThenFails);
    gate.resolve();
    expect(await statuses(busy)).toEqual(busy.map(() => 200));
    expect(await statuses(shared)).toEqual(shared.map(() => outcome));
    expect(new Set(t.objects.puts.map(({ key }) => key)).size).toBe(1);
    expect(readFooter(t.objects.puts[0]?.body ?? new Uint8Array()).entries).toHaveLength(60);
  }
  expect(await state(t)).toMatchObject({ batches: 60 + 2 * PUTS_AT_ONCE, missing: [] });
});

test("a slow PUT delays only its own segment's records", async () => {
  await using t = await aFaultyApp("files", { commitDeadlineMs: 10_000 });
  const gate = Promise.withResolvers<void>();
  t.objects.next.push(waitsFor(gate.promise));
  let slowIsDone = false;
  const slow = t.app.append(t.session, aBatch({ salt: "slow" })).finally(() => (slowIsDone = true));
  await eventually("the slow PUT has begun", () => t.objects.puts.length === 1);
  for (let i = 0; i < 30; i++) {
    const { result, ms } = await timed(() => t.app.append(t.session, aBatch({ salt: `fast${i}` })));
    expect(result.status).toBe(200);
    expect(ms).toBeLessThan(1000);
  }
  expect(slowIsDone).toBe(false);
  expect(await t.app.batches(t.session)).toHaveLength(30);
  gate.resolve();
  expect((await slow).status).toBe(200);
  expect(await t.app.batches(t.session)).toHaveLength(31);
});

test("a PUT that goes on after the deadline never gets the bytes of a later segment", async () => {
  await using t = await aFaultyApp();
  const gate = Promise.withResolvers<void>();
  const seen = Promise.withResolvers<[string, string]>();
  t.objects.next.push(async ({ body }) => {
    const before = Bun.SHA256.hash(body, "hex");
    await gate.promise;
    seen.resolve([before, Bun.SHA256.hash(body, "hex")]);
  });
  await expectRefused(await t.app.append(t.session, aBatch({ salt: "late" })));
  for (let i = 0; i < 8; i++)
    expect((await t.app.append(t.session, aBatch({ salt: `after${i}` }))).status).toBe(200);
  gate.resolve();
  const [before, after] = await seen.promise;
  expect(after).toBe(before);
});

test("a session whose PUT fails is not started", async () => {
  await using t = await aFaultyApp();
  t.objects.otherwise = fails;
  await expectRefused(await t.app.start());
  expect(await t.app.sql`select 1 from sessions`).toHaveLength(1);
});

test("a read that fails half-way breaks the answer off instead of ending it", async () => {
  await using t = await aFaultyApp();
  for (let i = 0; i < 6; i++)
    expect((await t.app.append(t.session, aBatch({ bytes: 200_000, salt: `${i}` }))).status).toBe(
      200,
    );
  let reads = 0;
  t.objects.beforeRead = () => {
    if (++reads === 5) throw new Error("the store is gone");
  };
  const reading = t.app.batches(t.session);
  expect(
    await reading.then(
      () => "ended",
      () => "broken off",
    ),
  ).toBe("broken off");
});

describe("an image", () => {
  const image = randomBytes(600_000);

  test("that needs a second PUT for one of its chunks is stored whole", async () => {
    await using t = await aFaultyApp("files", SMALL_SEGMENTS);
    t.objects.next.push(succeeds, fails, storesThenFails);
    expect((await upload(t, image)).status).toBe(200);
    const stored = await t.app.fetch(`/v1/images/${t.app.project.id}/aa11`);
    expect(Buffer.from(await stored.bytes()).equals(image)).toBe(true);
  });

  test("one of whose chunks cannot be stored is answered 503 and is not there", async () => {
    await using t = await aFaultyApp("files", SMALL_SEGMENTS);
    // The second segment's PUT never works; the others do.
    let second: string | undefined;
    t.objects.otherwise = async (put, store, objects) => {
      if (t.objects.puts.length === 2) second = put.key;
      await (put.key === second ? fails : succeeds)(put, store, objects);
    };
    await expectRefused(await upload(t, image));
    expect((await t.app.fetch(`/v1/images/${t.app.project.id}/aa11`)).status).toBe(404);
    t.objects.otherwise = succeeds;
    expect((await upload(t, image)).status).toBe(200);
    const stored = await t.app.fetch(`/v1/images/${t.app.project.id}/aa11`);
    expect(Buffer.from(await stored.bytes()).equals(image)).toBe(true);
  });
});

const SMALL_SEGMENTS = { env: { COMMIT_BYTES: String(192 * 1024) } };

type Faulty = AsyncDisposable & { app: TestApp; objects: FaultyObjects; session: TestSession };

/** A server with faults before its store, and a session in it; from here on the PUTs are counted. */
async function aFaultyApp(
  store: "files" | "s3" = "files",
  options: { commitDeadlineMs?: number; env?: Record<string, string> } = {},
): Promise<Faulty> {
  const objects = new FaultyObjects();
  const app = await TestApp.start({
    store,
    wrapObjects: objects.wrap,
    commitDeadlineMs: DEADLINE_MS,
    ...options,
  });
  const session = await app.aSession();
  objects.puts.length = 0;
  return { app, objects, session, [Symbol.asyncDispose]: () => app[Symbol.asyncDispose]() };
}

/** Requests that keep every PUT slot taken until the gate opens. */
async function fillThePutSlots(
  { app, objects, session }: Faulty,
  gate: Promise<void>,
  salt: string,
): Promise<Promise<Response>[]> {
  objects.puts.length = 0;
  const stalls: PutScript = waitsFor(gate);
  const requests: Promise<Response>[] = [];
  for (let i = 1; i <= PUTS_AT_ONCE; i++) {
    objects.next.push(stalls);
    requests.push(app.append(session, aBatch({ messages: 3, bytes: 300, salt: `${salt}-${i}` })));
    await eventually("a PUT has begun", () => objects.puts.length === i);
  }
  return requests;
}

const state = async ({ app }: Faulty) => await indexState(app.sql, app.objects);

async function statuses(requests: Promise<Response>[]): Promise<number[]> {
  return (await Promise.all(requests)).map(({ status }) => status);
}

async function expectRefused(response: Response): Promise<void> {
  expect(response.status).toBe(503);
  expect(Number(response.headers.get("retry-after"))).toBeGreaterThan(0);
  expect(await response.json()).toEqual({ error: expect.any(String) });
}

async function upload({ app, session }: Faulty, bytes: Uint8Array): Promise<Response> {
  return await uploadImage({ url: app.url, projectID: app.projectID }, session, "aa11", bytes);
}
