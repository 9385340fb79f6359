import { beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";

import { metric, refusalOf } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { aBatch } from "../support/batches.ts";
import { eventually } from "../support/eventually.ts";
import { FaultyObjects, succeeds, waitsFor } from "../support/faulty-objects.ts";
import { RawConnection } from "../support/raw-connection.ts";
import { uploadImage } from "../support/images.ts";
import { statusOf } from "../support/requests.ts";

setDefaultTimeout(60_000);

const INFLIGHT_BYTES_MAX = 2 ** 20;
const ENV = { INFLIGHT_BYTES_MAX: String(INFLIGHT_BYTES_MAX), COMMIT_BYTES: String(64 * 1024) };
const OVERLOAD = "too much is being stored at the moment, send it again";
// As much data as a start can store in its row.
const PERFORMANCE = { note: "x".repeat(15_000) };

let gate: PromiseWithResolvers<void>;
const objects = new FaultyObjects();
const app = TestApp.forTests({ wrapObjects: objects.wrap, env: ENV, commitDeadlineMs: 60_000 });
const inflight = async () => await metric(app, "floodgate_inflight_bytes");
const start = async () => await app.start({ performance: PERFORMANCE });

describe("while the store stands still", () => {
  let held: Promise<number | "no answer">[] = [];
  let session: Awaited<ReturnType<TestApp["aSession"]>>;

  beforeAll(async () => {
    session = await app.aSession();
    gate = Promise.withResolvers<void>();
    objects.otherwise = waitsFor(gate.promise);
    held = Array.from({ length: 40 }, async () => await statusOf(start()));
    await eventually("they wait", async () => (await inflight()) > 40 * 15_000);
  });

  test("starts are let in up to the limit, and more are refused at once", async () => {
    const statuses = await Promise.all(
      Array.from({ length: 200 }, async () => {
        const answer = await Promise.race([start(), Bun.sleep(2000)]);
        if (answer === undefined) return "waits";
        expect(answer.headers.get("retry-after")).toBe("1");
        return (await refusalOf(answer)).join(" ");
      }),
    );
    const counts = (text: string) => statuses.filter((one) => one === text).length;
    expect(counts(`503 ${OVERLOAD}`) + counts("waits")).toBe(200);
    expect(counts("waits")).toBeLessThan(30);
    expect(await inflight()).toBeLessThanOrEqual(INFLIGHT_BYTES_MAX);
  });

  test("an upload that has begun waits, with its row", async () => {
    const target = { url: app.url, projectID: app.projectID };
    const uploads = Array.from({ length: 20 }, (_, i) =>
      statusOf(uploadImage(target, session, `image${i}`, new Uint8Array(200_000).fill(i))),
    );
    await Bun.sleep(500);
    // One network chunk may go over what is left.
    expect(await inflight()).toBeLessThan(INFLIGHT_BYTES_MAX + 600_000);
    objects.otherwise = succeeds;
    gate.resolve();
    // Uploads that arrived when the limit was already reached were refused at once.
    const statuses = await Promise.all(uploads);
    expect(statuses.filter((status) => status !== 200 && status !== 503)).toEqual([]);
  });

  test("what was let in is stored, and nothing is held in the end", async () => {
    expect(await Promise.all(held)).toEqual(held.map(() => 200));
    await eventually("nothing is held", async () => (await inflight()) === 0);
    expect((await start()).status).toBe(200);
  });
});

test("requests that wait are bounded in number, and operators' routes still answer", async () => {
  const slow = new FaultyObjects();
  await using small = await TestApp.start({ wrapObjects: slow.wrap, env: { REQUESTS_MAX: "10" } });
  const session = await small.aSession();
  const stuck = Promise.withResolvers<void>();
  slow.otherwise = waitsFor(stuck.promise);
  const refused = Promise.withResolvers<Response>();
  const batches = Array.from({ length: 15 }, async (_, i) => {
    const answer = await small.append(session, aBatch({ messages: 1, salt: `small${i}` }));
    if (answer.status === 503) refused.resolve(answer);
    return answer.status;
  });
  const answer = await refused.promise;
  expect(answer.headers.get("retry-after")).toBe("1");
  expect(await refusalOf(answer)).toEqual([
    503,
    "too many requests wait at the moment, send it again",
  ]);
  for (const path of ["/livez", "/metrics"]) expect((await small.fetch(path)).status).toBe(200);
  stuck.resolve();
  const statuses = await Promise.all(batches);
  expect(statuses.filter((status) => status === 200)).toHaveLength(10);
});

test("the body of a start counts while it is read", async () => {
  // A fresh server: the limit of one whose store was stuck may have been lowered.
  await using fresh = await TestApp.start({ env: ENV });
  const held = async () => await metric(fresh, "floodgate_inflight_bytes");
  const connections: RawConnection[] = [];
  for (let i = 0; i < 5; i++) {
    const raw = await RawConnection.open(fresh.url);
    raw.head("POST /v1/ios/start", {
      "content-type": "application/json",
      "content-length": 120_000,
    });
    raw.write(new Uint8Array(100_000).fill(0x20));
    connections.push(raw);
  }
  await eventually("they are counted", async () => (await held()) >= 5 * 90_000);
  for (const raw of connections) raw[Symbol.dispose]();
  await eventually("nothing is held", async () => (await held()) === 0);
});
