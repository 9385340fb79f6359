import { expect, test } from "bun:test";

import { InflightBytes } from "../../src/ingest/inflight-bytes.ts";

const STEP = 10;

test("what is over the limit is refused with Retry-After, and let in once there is room", () => {
  const inflight = new InflightBytes(100, STEP);
  inflight.reserve(60);
  expect(() => inflight.reserve(41)).toThrow("too much is being stored");
  inflight.reserve(40);
  inflight.release(60);
  inflight.reserve(41);
  expect(inflight.bytes).toBe(81);
});

test("one request alone is let in whatever its size", () => {
  const inflight = new InflightBytes(100, STEP);
  inflight.reserve(1000);
  expect(inflight.bytes).toBe(1000);
});

test("the limit falls when records wait too long, and grows back with each commit in time", () => {
  const inflight = new InflightBytes(100, STEP);
  inflight.add(100);
  inflight.remove(0, 10_000);
  inflight.release(60);
  // Half of what was held took twice the target: 50 are left of the limit.
  expect(() => inflight.reserve(11)).toThrow();
  inflight.reserve(10);
  for (let commit = 0; commit < 5; commit++) inflight.remove(0, 100);
  inflight.reserve(50);
  expect(() => inflight.reserve(1)).toThrow();
});

test("however slow the store is, two segments stay allowed", () => {
  const inflight = new InflightBytes(100, STEP);
  inflight.add(1);
  inflight.remove(1, 1_000_000);
  inflight.reserve(2 * STEP);
  expect(() => inflight.reserve(1)).toThrow();
});

test("an upload waits for room instead of failing", async () => {
  const inflight = new InflightBytes(100, STEP);
  inflight.add(100);
  let resumed = false;
  const waiting = inflight.room().then(() => (resumed = true));
  await Bun.sleep(5);
  expect(resumed).toBe(false);
  inflight.remove(1, 10);
  await waiting;
  expect(resumed).toBe(true);
});
