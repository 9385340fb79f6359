import { expect, test } from "bun:test";

import { MARK_BYTES } from "../../bench/load/batch.ts";
import { buildWebBatch } from "../../bench/load/web-batch.ts";
import { walkWebFrames } from "../../src/ingest/web-frames.ts";

const SMALLEST_MESSAGE_BYTES = 8;

test.each(["player", "devtools"] as const)(
  "a batch of the type %s has the size that is asked for and one mark",
  (type) => {
    for (const size of [1024, 16_384]) {
      const { bytes, markOffsets, split } = buildWebBatch(type, size);
      expect(bytes.length).toBeLessThanOrEqual(size);
      expect(bytes.length).toBeGreaterThan(size - SMALLEST_MESSAGE_BYTES);
      expect([markOffsets.length, split]).toEqual([1, undefined]);
      expect(walkWebFrames(bytes, type).messages).toBeGreaterThan(size / 200);
    }
  },
);

test("a visual batch is two batches with a mark each", () => {
  const { bytes, markOffsets, split = 0 } = buildWebBatch("visual", 102_400);
  expect(bytes.length).toBeLessThanOrEqual(102_400);
  expect(bytes.length).toBeGreaterThan(102_400 - SMALLEST_MESSAGE_BYTES);
  const [first = 0, second = 0] = markOffsets;
  expect([first < split, second > split]).toEqual([true, true]);
  expect(walkWebFrames(bytes.subarray(0, split), "player").messages).toBeGreaterThan(1000);
  expect(walkWebFrames(bytes.subarray(split), "assets").messages).toBeGreaterThan(1);
});

test("writing a mark changes a batch, but not its framing", () => {
  for (const type of ["player", "devtools", "visual"] as const) {
    const { bytes, markOffsets, split } = buildWebBatch(type, 16_384);
    const marked = Buffer.from(bytes);
    for (const offset of markOffsets) marked.write("f".repeat(MARK_BYTES), offset);
    for (const [from, to] of [
      [0, split ?? bytes.length],
      [split ?? 0, bytes.length],
    ]) {
      expect(marked.subarray(from, to).equals(bytes.subarray(from, to))).toBe(false);
      expect(walkWebFrames(marked.subarray(from, to))).toEqual(
        walkWebFrames(bytes.subarray(from, to)),
      );
    }
  }
});
