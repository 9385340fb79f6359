import { expect, test } from "bun:test";

import { decodeJson } from "../../src/platform/json.ts";
import { isText } from "../../src/platform/text.ts";
import { parseDecimal } from "../../src/platform/whole-numbers.ts";

const NOT_UTF8 = Buffer.from([0x22, 0xff, 0x22]);

test("JSON that is not in UTF-8 is refused, unless its reader is lenient", () => {
  expect(() => decodeJson(NOT_UTF8)).toThrow("the body is not valid JSON");
  expect(decodeJson(NOT_UTF8, { isLenient: true })).toBe("\ufffd");
});

test("a byte order mark before JSON is passed over", () => {
  const body = Buffer.from("\ufeff7");
  expect([decodeJson(body), decodeJson(body, { isLenient: true })]).toEqual([7, 7]);
});

test("a text of the longest length is counted in characters, not in UTF-16 code units", () => {
  expect(isText("😀".repeat(3), 1, 3)).toBe(true);
  for (const wrong of ["😀".repeat(4), "", "a\0", "\ud800", 7, null])
    expect([wrong, isText(wrong, 1, 3)]).toEqual([wrong, false]);
});

test.each([
  ["0", 0n],
  ["0042", 42n],
  ["9223372036854775807", 2n ** 63n - 1n],
  ["9223372036854775808", undefined],
  ["18446744073709551616", undefined],
  ["", undefined],
  ["-1", undefined],
  ["+1", undefined],
  ["1.0", undefined],
  ["1e2", undefined],
  [" 1", undefined],
  ["0x1", undefined],
])("%p is a number of 63 bits only if it is nothing but its digits", (text, value) => {
  expect(parseDecimal(text)).toBe(value);
});
