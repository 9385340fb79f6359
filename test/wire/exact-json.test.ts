import * as fc from "fast-check";
import { expect, test } from "bun:test";

import { parseExact, stringifyExact } from "../../src/wire/exact-json.ts";

test("every integer of 64 bits and every text comes back as it was", () => {
  const value = fc.dictionary(
    fc.string(),
    fc.oneof(
      fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n),
      fc.string({ unit: "grapheme" }),
      fc.boolean(),
      fc.constant(null),
    ),
  );
  fc.assert(
    fc.property(value, (given) => {
      expect(Object.entries(parseExact(stringifyExact(given)) ?? {})).toEqual(
        Object.entries(given),
      );
    }),
  );
});

test.each<[string, unknown]>([
  ["9007199254740993", 9_007_199_254_740_993n],
  ["-9223372036854775808", -(2n ** 63n)],
  ["-0", 0n],
  ["[1,[2]]", [1n, [2n]]],
  ["1.0", 1],
  ["1e3", 1000],
  ["123456789012345678901", 123_456_789_012_345_680_000],
  ['"12"', "12"],
])("%s is read with all its digits, or not as an integer", (text, value) => {
  expect(parseExact(text)).toEqual(value);
});

test.each(["", "01", "+1", "1n", "{", "NaN"])("%p is no JSON", (text) => {
  expect(() => parseExact(text)).toThrow(SyntaxError);
});
