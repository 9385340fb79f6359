import { expect, setDefaultTimeout, test } from "bun:test";

import { TestApp, type TestSession } from "../support/app.ts";
import { aBatch } from "../support/batches.ts";
import { FaultyObjects, succeeds } from "../support/faulty-objects.ts";
import { aProject } from "../support/projects.ts";
import { uploadImage } from "../support/images.ts";
import { statusOf } from "../support/requests.ts";

setDefaultTimeout(60_000);

const PUT_MS = 400;
const COMMIT_BYTES = 64 * 1024;
const PUTS_AT_ONCE = 8;
const BATCH_BYTES = 16 * 1024;
const LOAD_MS = 2500;
/** What the slowed store takes. */
const BATCHES_PER_S = (PUTS_AT_ONCE * COMMIT_BYTES * 1000) / PUT_MS / BATCH_BYTES;
const ENV = { INFLIGHT_BYTES_MAX: String(2 ** 21), COMMIT_BYTES: String(COMMIT_BYTES) };

/** Sends so many batches a second, whatever becomes of them. */
async function load(
  app: TestApp,
  session: TestSession,
  perSecond: number,
): Promise<(number | "no answer")[]> {
  const answers: Promise<number | "no answer">[] = [];
  const startedMs = performance.now();
  for (let ms = 0; ms < LOAD_MS; ms = performance.now() - startedMs) {
    while (answers.length < (ms * perSecond) / 1000)
      answers.push(
        statusOf(app.append(session, aBatch({ messages: 1, salt: crypto.randomUUID() }))),
      );
    await Bun.sleep(10);
  }
  return await Promise.all(answers);
}

test("beside a project at ten times what the store takes another one at a low rate is never refused", async () => {
  const objects = new FaultyObjects();
  objects.otherwise = async (...put) => {
    await Bun.sleep(PUT_MS);
    await succeeds(...put);
  };
  await using app = await TestApp.start({ env: ENV, wrapObjects: objects.wrap });
  const quiet = await aProject(app);
  const sessions = [await app.aSession(), await app.aSession({ projectID: quiet.projectID })];
  const [theirs, ours] = sessions;
  if (theirs === undefined || ours === undefined) throw new Error("no sessions");
  const target = { url: app.url, projectID: quiet.projectID };
  const upload = async () => {
    await Bun.sleep(LOAD_MS / 2);
    return await statusOf(uploadImage(target, ours, "image", new Uint8Array(100_000)));
  };
  const [noisy, low, image] = await Promise.all([
    load(app, theirs, 10 * BATCHES_PER_S),
    load(app, ours, BATCHES_PER_S / 10),
    upload(),
  ]);
  const of = (status: number) => noisy.filter((one) => one === status).length;
  expect([of(200) > 0, of(503) > noisy.length / 2]).toEqual([true, true]);
  expect(of(200) + of(503)).toBe(noisy.length);
  expect(low.length).toBeGreaterThan(10);
  expect(low.filter((status) => status !== 200)).toEqual([]);
  expect(image).toBe(200);
  expect(await app.batches(ours)).toHaveLength(low.length);
});
