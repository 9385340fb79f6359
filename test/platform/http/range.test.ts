import { expect, test } from "bun:test";

import { parseRange } from "../../../src/platform/http/range.ts";

test.each([
  ["bytes=0-99", { start: 0, end: 100 }],
  ["bytes=100-", { start: 100, end: 1000 }],
  ["bytes=-100", { start: 900, end: 1000 }],
  ["bytes=-5000", { start: 0, end: 1000 }],
  ["bytes=990-5000", { start: 990, end: 1000 }],
  ["bytes=999-999", { start: 999, end: 1000 }],
  ["Bytes=0-0", { start: 0, end: 1 }],
  ["bytes=5-99999999999999999999", { start: 5, end: 1000 }],
  ["bytes=-99999999999999999999", { start: 0, end: 1000 }],
])("%s of 1,000 bytes is served", (header, range) => {
  expect(parseRange(header, 1000)).toEqual(range);
});

test.each(["bytes=1000-", "bytes=1000-2000", "bytes=-0", "bytes=99999999999999999999-"])(
  "%s of 1,000 bytes lies outside",
  (header) => {
    expect(parseRange(header, 1000)).toBe("unsatisfiable");
  },
);

test.each([
  null,
  "",
  "bytes=-",
  "bytes=5-2",
  "bytes=0-1,5-6",
  "items=0-5",
  "bytes=a-b",
  "bytes=0x1-2",
])("%p means the whole", (header) => {
  expect(parseRange(header, 1000)).toBeUndefined();
});

test("nothing of an empty file can be satisfied", () => {
  expect(parseRange("bytes=0-0", 0)).toBe("unsatisfiable");
});
