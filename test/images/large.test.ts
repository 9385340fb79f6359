import { expect, setDefaultTimeout, test } from "bun:test";

import { metric } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { eventually, timed } from "../support/eventually.ts";
import { FaultyObjects, fails, waitsFor } from "../support/faulty-objects.ts";
import { imageOf, imagesOf, uploadImage } from "../support/images.ts";
import { indexState } from "../support/index-state.ts";
import { Random } from "../support/random.ts";

setDefaultTimeout(60_000);

const MIB = 2 ** 20;
const WINDOW_BYTES_MAX = 24 * MIB;
// Bytes that one turn of the event loop may take before the window is looked at again.
const SLACK_BYTES = MIB;
// Longer than an upload takes: no segment closes because of its age.
const COMMIT_INTERVAL_MS = "10000";
const UPLOAD_MS_MAX = 8000;

async function anApp(env: Record<string, string>, options = {}) {
  const objects = new FaultyObjects();
  const app = await TestApp.start({
    wrapObjects: objects.wrap,
    env: { FILE_SIZE_LIMIT: String(64 * MIB), ...env },
    ...options,
  });
  const session = await app.aSession();
  const inflight = () => metric(app, "floodgate_inflight_bytes");
  return {
    app,
    objects,
    session,
    inflight,
    [Symbol.asyncDispose]: () => app[Symbol.asyncDispose](),
  };
}

test("a large image fills its segments, whatever a PUT costs, and its end waits for no interval", async () => {
  await using t = await anApp({ COMMIT_BYTES: String(MIB), COMMIT_INTERVAL_MS });
  const { segments } = await indexState(t.app.sql, t.app.objects);
  const image = new Random(1).bytes(8 * MIB);
  expect((await uploadImage(t.app, t.session, "large", image)).status).toBe(200);
  const state = await indexState(t.app.sql, t.app.objects);
  // Nine for the image with its headers, and one more where a chunk did not fit.
  expect(state.segments - segments).toBeLessThanOrEqual(10);
  expect(await imageOf(t.app, "large")).toEqual(image);
});

test("a segment that is larger than the window does not stop an upload", async () => {
  await using t = await anApp({ COMMIT_BYTES: String(64 * MIB), COMMIT_INTERVAL_MS });
  const image = new Random(2).bytes(40 * MIB);
  const sent = await timed(() => uploadImage(t.app, t.session, "large", image));
  expect(sent.result.status).toBe(200);
  expect(sent.ms).toBeLessThan(UPLOAD_MS_MAX);
  expect(await imageOf(t.app, "large")).toEqual(image);
});

test.each([
  ["256 MiB", 256 * MIB, WINDOW_BYTES_MAX],
  ["32 MiB", 32 * MIB, 16 * MIB],
] as const)(
  "while the store stands still an upload waits in bounded memory, with %s for all of them",
  async (_, all, bytesMax) => {
    await using t = await anApp({ COMMIT_BYTES: String(MIB), INFLIGHT_BYTES_MAX: String(all) });
    const gate = Promise.withResolvers<void>();
    t.objects.otherwise = waitsFor(gate.promise);
    const image = new Random(3).bytes(40 * MIB);
    const sent = uploadImage(t.app, t.session, "large", image);
    await eventually("the window is full", async () => (await t.inflight()) > bytesMax - MIB);
    await Bun.sleep(500);
    expect(await t.inflight()).toBeLessThanOrEqual(bytesMax + SLACK_BYTES);
    gate.resolve();
    expect((await sent).status).toBe(200);
    expect(await imageOf(t.app, "large")).toEqual(image);
    await eventually("nothing is held", async () => (await t.inflight()) === 0);
  },
);

test("a large image of which one segment cannot be stored is refused, and nothing is held or listed", async () => {
  await using t = await anApp({ COMMIT_BYTES: String(MIB) }, { commitDeadlineMs: 2000 });
  const image = new Random(4).bytes(20 * MIB);
  let puts = 0;
  let lost = "";
  t.objects.otherwise = async (put, store, inner) => {
    if (++puts === 5) lost = put.key;
    await (put.key === lost ? fails(put, store, inner) : store());
  };
  expect((await uploadImage(t.app, t.session, "large", image)).status).toBe(503);
  expect(await imagesOf(t.app, t.session)).toEqual([]);
  await eventually("nothing is held", async () => (await t.inflight()) === 0);
  expect((await uploadImage(t.app, t.session, "large", image)).status).toBe(200);
  expect(await imageOf(t.app, "large")).toEqual(image);
});
