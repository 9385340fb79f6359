import { gunzipSync } from "node:zlib";

import { expect, test } from "bun:test";
import * as fc from "fast-check";

import { buildBatch, MARK_BYTES } from "../../bench/load/batch.ts";
import { gzipBatch } from "../../bench/load/gzip-batch.ts";
import { buildWebBatch } from "../../bench/load/web-batch.ts";

const BEFORE = 7;
const DIGITS = "0123456789abcdef".split("");

test("a compressed batch inflates to the batch with whatever mark was written into it", () => {
  const digits = fc.string({
    unit: fc.constantFrom(...DIGITS),
    minLength: MARK_BYTES,
    maxLength: MARK_BYTES,
  });
  const mobile = [1024, 16_384, 100_000].map((size) => buildBatch(size, Date.now()));
  for (const batch of [...mobile, buildWebBatch("visual", 102_400)]) {
    const { body, markOffsets, seal } = gzipBatch(batch);
    expect(gunzipSync(body)).toEqual(Buffer.from(batch.bytes));
    const buffer = Buffer.concat([Buffer.alloc(BEFORE), body]);
    fc.assert(
      fc.property(digits, (text) => {
        for (const offset of markOffsets) buffer.write(text, BEFORE + offset);
        seal(buffer, BEFORE);
        const marked = Buffer.from(batch.bytes);
        for (const offset of batch.markOffsets) marked.write(text, offset);
        // gunzip throws if the checksum is wrong.
        expect(gunzipSync(buffer.subarray(BEFORE)).equals(marked)).toBe(true);
      }),
      { numRuns: 30 },
    );
  }
});

test.each([
  ["a batch", "devices", buildBatch(16_384, Date.now())],
  ["a page", "the web tracker", buildWebBatch("visual", 102_400)],
])("%s is compressed to a share that batches of %s have", (_what, _whose, batch) => {
  const { body } = gzipBatch(batch);
  expect(body.length).toBeLessThan(batch.bytes.length / 2);
  expect(body.length).toBeGreaterThan(batch.bytes.length / 8);
});
