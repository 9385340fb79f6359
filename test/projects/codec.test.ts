import * as fc from "fast-check";
import { expect, test } from "bun:test";
import { decodeProjectID, encodeProjectID } from "../../src/projects/codec.ts";

test.each([
  [1, 7286977268806823],
  [2, 5566755282872654],
  [42, 8815469883433830],
  [1000, 4656671348730968],
  [65535, 8365223397231449],
])("project %d is %d to the iOS SDK", (projectId, encoded) => {
  expect(encodeProjectID(projectId)).toBe(encoded);
  expect(decodeProjectID(encoded)).toBe(projectId);
});

test("every project id decodes from what it encodes to, a safe integer of 53 bits", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 2 ** 32 - 1 }), (projectId) => {
      const encoded = encodeProjectID(projectId);
      expect(Number.isSafeInteger(encoded)).toBe(true);
      expect(encoded).toBeGreaterThanOrEqual(2 ** 52);
      expect(decodeProjectID(encoded)).toBe(projectId);
    }),
    { examples: [[1], [2 ** 32 - 1]] },
  );
});

test("a number decodes to a project id only if that encodes to it", () => {
  fc.assert(
    fc.property(fc.integer({ min: 2 ** 52, max: Number.MAX_SAFE_INTEGER }), (encoded) => {
      const projectId = decodeProjectID(encoded);
      if (projectId !== undefined) expect(encodeProjectID(projectId)).toBe(encoded);
    }),
  );
});

test.each([
  0,
  1,
  -1,
  2 ** 52 - 1,
  2 ** 52,
  2 ** 53,
  2 ** 52 + 0.5,
  Number.NaN,
  Number.POSITIVE_INFINITY,
])("%d is no encoded project id", (encoded) => {
  expect(decodeProjectID(encoded)).toBeUndefined();
});

test.each([0, -1, 2 ** 32, 1.5])("%d is no project id to encode", (projectId) => {
  expect(() => encodeProjectID(projectId)).toThrow(RangeError);
});
