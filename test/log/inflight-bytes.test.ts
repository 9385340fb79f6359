import { expect, test } from "bun:test";

import { InflightBytes } from "../../src/log/inflight-bytes.ts";

const STEP = 10;
const ONE = 1;
const NOISY = 2;
const QUIET = 3;

test("what is over the limit is refused with Retry-After, and let in once there is room", () => {
  const inflight = new InflightBytes(100, STEP);
  inflight.reserve(ONE, 60);
  expect(() => inflight.reserve(ONE, 41)).toThrow("too much is being stored");
  inflight.reserve(ONE, 40);
  inflight.release(ONE, 60);
  inflight.reserve(ONE, 41);
  expect(inflight.bytes).toBe(81);
});

test("one request alone is let in whatever its size", () => {
  const inflight = new InflightBytes(100, STEP);
  inflight.reserve(ONE, 1000);
  expect(inflight.bytes).toBe(1000);
});

test("the limit falls when records wait too long, and grows back with each commit in time", () => {
  const inflight = new InflightBytes(100, STEP);
  inflight.add(ONE, 100);
  inflight.remove(new Map(), 10_000);
  inflight.release(ONE, 60);
  // Half of what was held took twice the target: 50 are left of the limit.
  expect(() => inflight.reserve(ONE, 11)).toThrow();
  inflight.reserve(ONE, 10);
  for (let commit = 0; commit < 5; commit++) inflight.remove(new Map(), 100);
  inflight.reserve(ONE, 50);
  expect(() => inflight.reserve(ONE, 1)).toThrow();
});

test("however slow the store is, two segments stay allowed", () => {
  const inflight = new InflightBytes(100, STEP);
  inflight.add(ONE, 1);
  inflight.remove(new Map([[ONE, 1]]), 1_000_000);
  inflight.reserve(ONE, 2 * STEP);
  expect(() => inflight.reserve(ONE, 1)).toThrow();
});

test("a limit of less than two segments does not rise when the store is slow", () => {
  const inflight = new InflightBytes(15, STEP);
  inflight.remove(new Map(), 1_000_000);
  expect(inflight.limit).toBe(15);
});

test("a project that fills the limit leaves room for another, up to a quarter beyond the limit", () => {
  const inflight = new InflightBytes(800, STEP);
  inflight.reserve(NOISY, 800);
  inflight.reserve(QUIET, 150);
  expect(() => inflight.reserve(NOISY, 1)).toThrow();
  inflight.reserve(QUIET, 50);
  expect(() => inflight.reserve(QUIET, 1)).toThrow();
  expect(inflight.bytes).toBe(1000);
});

test("as the first one's bytes become durable the other gets half of the limit, and no more", () => {
  const inflight = new InflightBytes(800, STEP);
  inflight.reserve(NOISY, 800);
  inflight.reserve(QUIET, 100);
  inflight.remove(new Map([[NOISY, 300]]), 10);
  inflight.reserve(QUIET, 300);
  for (const project of [QUIET, NOISY]) expect(() => inflight.reserve(project, 1)).toThrow();
  inflight.remove(new Map([[NOISY, 101]]), 10);
  inflight.reserve(NOISY, 1);
});

test("a limit that fell below what one project holds does not shut out another", () => {
  const inflight = new InflightBytes(800, STEP);
  inflight.reserve(NOISY, 800);
  inflight.remove(new Map(), 100_000);
  inflight.reserve(QUIET, 20);
  expect(() => inflight.reserve(NOISY, 1)).toThrow();
});

test("whatever is given back, nothing is held in the end", async () => {
  const inflight = new InflightBytes(100, STEP);
  inflight.reserve(ONE, 50);
  inflight.add(ONE, 10);
  inflight.reserve(QUIET, 0);
  inflight.release(ONE, 50);
  inflight.remove(new Map([[ONE, 10]]), 10);
  expect(inflight.bytes).toBe(0);
  // Whoever gave everything back shares no more.
  inflight.reserve(NOISY, 100);
  inflight.release(NOISY, 100);
  inflight.reserve(ONE, 100);
});

test("an upload waits for room instead of failing", async () => {
  const inflight = new InflightBytes(100, STEP);
  inflight.add(ONE, 100);
  let resumed = false;
  const waiting = inflight.hold(ONE, 1).then(() => (resumed = true));
  await inflight.hold(QUIET, 1);
  expect(resumed).toBe(false);
  // The waiting upload's bytes are reserved: the one byte of the other project counts.
  inflight.remove(new Map([[ONE, 1]]), 10);
  expect(inflight.bytes).toBe(100);
  inflight.remove(new Map([[ONE, 1]]), 10);
  await waiting;
  expect(resumed).toBe(true);
});

test("those who wait get the room one after the other, and no more than there is", async () => {
  const inflight = new InflightBytes(100, STEP);
  inflight.add(ONE, 100);
  const admitted: number[] = [];
  const waiting = [1, 2, 3].map(async (turn) => {
    await inflight.hold(ONE, 10);
    admitted.push(turn);
  });
  inflight.remove(new Map([[ONE, 20]]), 10);
  await Bun.sleep(0);
  expect(admitted).toEqual([1, 2]);
  expect(inflight.bytes).toBe(100);
  inflight.release(ONE, 10);
  await Promise.all(waiting);
  expect(admitted).toEqual([1, 2, 3]);
});

test("whoever waits for more than there can be is let in when any of it is free", async () => {
  const inflight = new InflightBytes(100, STEP);
  inflight.add(ONE, 90);
  const waiting = inflight.hold(ONE, 1000);
  inflight.remove(new Map([[ONE, 10]]), 10);
  await waiting;
  expect(inflight.bytes).toBe(1080);
});

test("a request gives back all that it held, also when it fails", () => {
  const inflight = new InflightBytes(100, STEP);
  const work = () => {
    using held = inflight.holding(ONE);
    held.reserve(60);
    expect(inflight.bytes).toBe(60);
    held.reserve(60);
  };
  expect(work).toThrow("too much is being stored");
  expect(inflight.bytes).toBe(0);
});
