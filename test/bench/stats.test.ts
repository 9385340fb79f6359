import { expect, test } from "bun:test";

import { growthPerMinute, median, spread } from "../../bench/stats.ts";

function samples(count: number, bytesAt: (second: number) => number) {
  return Array.from({ length: count }, (_, seconds) => ({ seconds, bytes: bytesAt(seconds) }));
}

test("memory that stays has no growth", () => {
  expect(growthPerMinute(samples(600, () => 200e6))).toBe(0);
});

test("growth is a share of the mean per minute", () => {
  // 100 MB, and 1 MB more each minute: the last three quarters have a mean of 106.25 MB.
  const growing = samples(601, (seconds) => 100e6 + (seconds / 60) * 1e6);
  expect(growthPerMinute(growing)).toBeCloseTo(1 / 106.25, 4);
});

test("memory that shrinks has a negative growth", () => {
  expect(growthPerMinute(samples(600, (seconds) => 200e6 - seconds * 1e4))).toBeLessThan(0);
});

test("what grows in the first quarter does not count", () => {
  const warm = samples(600, (seconds) => (seconds < 150 ? 50e6 + seconds * 1e6 : 200e6));
  expect(growthPerMinute(warm)).toBe(0);
});

test("samples at uneven times count by their time", () => {
  const uneven = [0, 1, 2, 3, 10, 11, 40, 60].map((seconds) => ({
    seconds,
    bytes: 100e6 + seconds * 1e5,
  }));
  const rest = uneven.slice(2).reduce((sum, { bytes }) => sum + bytes, 0) / 6;
  expect(growthPerMinute(uneven)).toBeCloseTo((1e5 * 60) / rest, 6);
});

test("the spread of values is a share of their median", () => {
  expect(spread([90, 100, 120])).toBeCloseTo(0.3);
  expect(spread([100])).toBe(0);
  expect(median([1, 2, 3, 10])).toBe(2.5);
});
