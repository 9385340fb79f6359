import { expect, test } from "bun:test";

import { RateWindows } from "../../../src/platform/http/rate-windows.ts";

function windows(keysMax: number) {
  let nowMs = 0;
  const counts = new RateWindows(1000, keysMax, () => nowMs);
  return { counts, sleep: (ms: number) => (nowMs += ms) };
}

test("a window begins with the first count and ends by itself", () => {
  const { counts, sleep } = windows(10);
  expect(counts.count("a")).toEqual({ count: 1, leftMs: 1000 });
  sleep(600);
  expect(counts.count("a")).toEqual({ count: 2, leftMs: 400 });
  expect(counts.count("b")).toEqual({ count: 1, leftMs: 1000 });
  sleep(400);
  expect(counts.count("a")).toEqual({ count: 1, leftMs: 1000 });
});

test("a blocked key is over any limit until then", () => {
  const { counts, sleep } = windows(10);
  counts.count("a");
  counts.block("a", 300);
  expect(counts.count("a").count).toBe(Number.POSITIVE_INFINITY);
  sleep(300);
  expect(counts.count("a").count).toBe(1);
});

test("keys without number take bounded memory, and those of windows that are over take none", () => {
  const { counts, sleep } = windows(1000);
  for (let key = 0; key < 200_000; key++) counts.count(`2001:db8:${key.toString(16)}`);
  expect(counts.size).toBeLessThanOrEqual(1000);
  // The newest keys are kept.
  expect(counts.count(`2001:db8:${(199_999).toString(16)}`).count).toBe(2);
  for (const another of ["one", "another"]) {
    sleep(1000);
    counts.count(another);
  }
  expect(counts.size).toBeLessThanOrEqual(2);
});

test("a window holds until its end, whatever other keys come and go", () => {
  const { counts, sleep } = windows(1000);
  for (let round = 0; round < 10; round++) {
    counts.count("a");
    for (let ms = 100; ms < 1000; ms += 100) {
      sleep(100);
      counts.count(`${round} ${ms}`);
      expect(counts.count("a")).toEqual({ count: 1 + ms / 100, leftMs: 1000 - ms });
    }
    sleep(100);
  }
});
