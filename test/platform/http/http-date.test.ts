import { expect, test } from "bun:test";

import { formatHttpDate, parseHttpDate } from "../../../src/platform/http/http-date.ts";

const NOW = new Date("2026-11-30T12:00:00Z");
const MS = Date.UTC(1994, 10, 6, 8, 49, 37);

test.each([
  ["Sun, 06 Nov 1994 08:49:37 GMT", MS],
  ["Sunday, 06-Nov-94 08:49:37 GMT", MS],
  ["Sun Nov  6 08:49:37 1994", MS],
  ["Sun Nov 16 08:49:37 1994", MS + 10 * 86_400_000],
  ["Tuesday, 01-Dec-76 00:00:00 GMT", Date.UTC(2076, 11, 1)],
  ["Wednesday, 01-Dec-77 00:00:00 GMT", Date.UTC(1977, 11, 1)],
  ["Thu, 29 Feb 2024 23:59:59 GMT", Date.UTC(2024, 1, 29, 23, 59, 59)],
])("%s is a date", (text, ms) => {
  expect(parseHttpDate(text, NOW)).toBe(ms);
});

test.each([
  "",
  "*",
  "0",
  "1994",
  "1994-11-06T08:49:37Z",
  "Sun, 6 Nov 1994 08:49:37 GMT",
  "Sun, 06 Nov 1994 08:49:37 UTC",
  "Sun, 06 Nov 1994 08:49:37 +0000",
  "Sun, 06 Nov 1994 08:49:37",
  "Sun, 06 nov 1994 08:49:37 GMT",
  "Sun, 06 Foo 1994 08:49:37 GMT",
  "Sun, 31 Feb 1994 08:49:37 GMT",
  "Sun, 06 Nov 1994 24:00:01 GMT",
  "Sun, 06 Nov 1994 08:60:37 GMT",
  "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
  "Sun, 06 Nov 1994 08:49:37 GMT ",
  "Sun Nov 6 08:49:37 1994",
  "Sun Nov  6 08:49:37 1994 GMT",
  '"etag"',
])("%p is none", (text) => {
  expect(parseHttpDate(text, NOW)).toBeUndefined();
});

test("a date is written as it is read", () => {
  expect(formatHttpDate(MS)).toBe("Sun, 06 Nov 1994 08:49:37 GMT");
});
