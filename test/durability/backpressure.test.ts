import { expect, setDefaultTimeout, test } from "bun:test";

import { metric } from "../support/answers.ts";
import { TestApp, type TestSession } from "../support/app.ts";
import { aBatch } from "../support/batches.ts";
import { eventually, timed } from "../support/eventually.ts";
import { FaultyObjects, fails, succeeds, waitsFor } from "../support/faulty-objects.ts";
import { MULTIPART, encodeForm } from "../support/forms.ts";
import { Random } from "../support/random.ts";
import { RawConnection } from "../support/raw-connection.ts";
import { aFile, projectField } from "../support/images.ts";
import { statusOf } from "../support/requests.ts";

setDefaultTimeout(60_000);

const INFLIGHT_BYTES_MAX = 2 ** 20;
const REFUSED_MS_MAX = 50;
const BEGUN_BYTES = 50_000;
const SMALL = {
  INFLIGHT_BYTES_MAX: String(INFLIGHT_BYTES_MAX),
  COMMIT_BYTES: String(64 * 1024),
};

test("above the limit new batches are refused at once, and those let in succeed once the store goes on", async () => {
  await using t = await aSmallApp();
  const gate = Promise.withResolvers<void>();
  t.objects.otherwise = waitsFor(gate.promise);
  const held: Promise<number | "no answer">[] = [];
  // Twice a batch's size is counted while it is read.
  for (let i = 0; (await inflight(t)) < INFLIGHT_BYTES_MAX - 2 * 16_384; i++)
    held.push(statusOf(t.app.append(t.session, aBatch({ salt: `held${i}` }))));
  await eventually("the bodies are read", async () => (await inflight(t)) <= held.length * 16_384);
  expect(await inflight(t)).toBeGreaterThan(INFLIGHT_BYTES_MAX / 2);

  const refusedMs: number[] = [];
  for (let i = 0; i < 50; i++) {
    const large = aBatch({ bytes: 100_000, salt: `refused${i}` });
    const { result, ms } = await timed(() => t.app.append(t.session, large));
    expect(result.status).toBe(503);
    expect(Number(result.headers.get("retry-after"))).toBeGreaterThan(0);
    expect(await result.json()).toEqual({ error: expect.any(String) });
    refusedMs.push(ms);
  }
  expect(refusedMs.toSorted((a, b) => a - b)[25]).toBeLessThan(REFUSED_MS_MAX);
  expect(await inflight(t)).toBeLessThanOrEqual(INFLIGHT_BYTES_MAX);

  gate.resolve();
  expect(await Promise.all(held)).toEqual(held.map(() => 200));
  expect(await t.app.batches(t.session)).toHaveLength(held.length);
  await eventually("nothing is held", async () => (await inflight(t)) === 0);
  expect((await t.app.append(t.session, aBatch({ bytes: 100_000, salt: "after" }))).status).toBe(
    200,
  );
});

test("an upload that has begun waits for room, in bounded memory, and is stored whole", async () => {
  await using t = await aSmallApp();
  const gate = Promise.withResolvers<void>();
  t.objects.otherwise = waitsFor(gate.promise);
  const images = Array.from({ length: 4 }, (_, i) => new Random(i).bytes(3_000_000));
  using opened = new DisposableStack();
  const uploads = await Promise.all(
    images.map(async (image, i) => {
      const form = encodeForm([projectField(t.app), aFile(`image${i}`, image)]);
      const connection = opened.use(await RawConnection.open(t.app.url));
      connection.head("POST /v1/ios/images", {
        ...MULTIPART,
        authorization: `Bearer ${t.session.token}`,
        "content-length": form.length,
      });
      connection.write(form.subarray(0, BEGUN_BYTES));
      return { connection, rest: form.subarray(BEGUN_BYTES) };
    }),
  );
  // One that arrives only after the others have filled the memory would be refused.
  const begun = uploads.length * (BEGUN_BYTES - 1000);
  await eventually("all have begun", async () => (await inflight(t)) >= begun);
  for (const { connection, rest } of uploads) connection.write(rest);
  await eventually("the limit is reached", async () => (await inflight(t)) >= INFLIGHT_BYTES_MAX);
  await Bun.sleep(500);
  // One network chunk of each may go over it.
  expect(await inflight(t)).toBeLessThan(INFLIGHT_BYTES_MAX + images.length * 600_000);
  expect((await t.app.append(t.session, aBatch())).status).toBe(503);

  gate.resolve();
  for (const { connection } of uploads) expect((await connection.response()).status).toBe(200);
  for (const [i, image] of images.entries()) {
    const stored = await t.app.fetch(`/v1/images/${t.app.project.id}/image${i}`);
    expect(Buffer.from(await stored.bytes()).equals(image)).toBe(true);
  }
  await eventually("nothing is held", async () => (await inflight(t)) === 0);
});

test("whatever becomes of a request, its bytes are given back", async () => {
  await using t = await aSmallApp({ commitDeadlineMs: 300 });
  const authorization = `Bearer ${t.session.token}`;
  t.objects.next.push(fails);
  await t.app.append(t.session, aBatch());
  t.objects.otherwise = fails;
  expect((await t.app.append(t.session, aBatch({ salt: "lost" }))).status).toBe(503);
  t.objects.otherwise = succeeds;
  const gzip = { "content-encoding": "gzip" };
  for (const [body, headers] of [
    [new Uint8Array(), {}],
    [new Uint8Array(2_000_000), {}],
    [aBatch(), gzip],
    [Bun.gzipSync(new Uint8Array(3_000_000)), gzip],
    [new Uint8Array([1, 2, 3]), {}],
  ] as const)
    await (await t.app.append(t.session, body, "/v1/ios/append", { ...headers })).bytes();
  await t.app.post("/v1/ios/append", aBatch(), { authorization: "Bearer none" });
  for (const path of ["/v1/ios/append", "/v1/ios/images"]) {
    using cut = await RawConnection.open(t.app.url);
    const type = "multipart/form-data; boundary=b";
    cut.head(`POST ${path}`, { authorization, "content-type": type, "content-length": 100_000 });
    cut.write("--b\r\ncontent-disposition: form-data; name=a; filename=b\r\n\r\n");
    cut.write(new Uint8Array(50_000));
    if (path.endsWith("append"))
      await eventually("it is counted", async () => (await inflight(t)) > 0);
  }
  await eventually("nothing is held", async () => (await inflight(t)) === 0);
});

test("a store that stands still delays no request much beyond the deadline, however many wait", async () => {
  const deadlineMs = 1000;
  await using t = await aSmallApp({ commitDeadlineMs: deadlineMs });
  t.objects.otherwise = waitsFor(Promise.withResolvers<void>().promise);
  // Each needs a segment of its own, and there are more than PUTs at once.
  const requests = await Promise.all(
    Array.from({ length: 20 }, (_, i) =>
      timed(() => statusOf(t.app.append(t.session, aBatch({ bytes: 40_000, salt: `${i}` })))),
    ),
  );
  expect(requests.map(({ result }) => result)).toEqual(requests.map(() => 503));
  expect(Math.max(...requests.map(({ ms }) => ms))).toBeLessThan(deadlineMs + 1000);
  expect(await t.app.batches(t.session)).toEqual([]);
  await eventually("nothing is held", async () => (await inflight(t)) === 0);
});

type Small = AsyncDisposable & { app: TestApp; objects: FaultyObjects; session: TestSession };

async function aSmallApp(options: { commitDeadlineMs?: number } = {}): Promise<Small> {
  const objects = new FaultyObjects();
  const app = await TestApp.start({ wrapObjects: objects.wrap, env: SMALL, ...options });
  const session = await app.aSession();
  return { app, objects, session, [Symbol.asyncDispose]: () => app[Symbol.asyncDispose]() };
}

const inflight = async ({ app }: Small) => await metric(app, "floodgate_inflight_bytes");
