import { gunzipSync } from "node:zlib";

import { expect, test } from "bun:test";
import * as fc from "fast-check";

import { buildBatch, MARK_BYTES } from "../../bench/load/batch.ts";
import { gzipBatch } from "../../bench/load/gzip-batch.ts";

const BEFORE = 7;
const DIGITS = "0123456789abcdef".split("");

test("a compressed batch inflates to the batch with whatever mark was written into it", () => {
  const digits = fc.string({
    unit: fc.constantFrom(...DIGITS),
    minLength: MARK_BYTES,
    maxLength: MARK_BYTES,
  });
  for (const size of [1024, 16_384, 100_000]) {
    const batch = buildBatch(size, Date.now());
    const { body, markOffsets, seal } = gzipBatch(batch);
    const [mark = 0] = markOffsets;
    expect(gunzipSync(body)).toEqual(Buffer.from(batch.bytes));
    const buffer = Buffer.concat([Buffer.alloc(BEFORE), body]);
    fc.assert(
      fc.property(digits, (text) => {
        buffer.write(text, BEFORE + mark);
        seal(buffer, BEFORE);
        const marked = Buffer.from(batch.bytes);
        marked.write(text, batch.markOffset);
        // gunzip throws if the checksum is wrong.
        expect(gunzipSync(buffer.subarray(BEFORE)).equals(marked)).toBe(true);
      }),
      { numRuns: 30 },
    );
  }
});

test("a batch is compressed to a share that batches of devices have", () => {
  const { body } = gzipBatch(buildBatch(16_384, Date.now()));
  expect(body.length).toBeLessThan(16_384 / 2);
  expect(body.length).toBeGreaterThan(16_384 / 8);
});
