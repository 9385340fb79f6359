import { gunzipSync, zstdDecompressSync } from "node:zlib";
import { describe, expect, test } from "bun:test";

import { encoded } from "../../src/replay/coding.ts";
import { concat } from "../support/batches.ts";
import { eventually } from "../support/eventually.ts";
import { failure } from "../support/failure.ts";
import { Random } from "../support/random.ts";
import { chunksOf } from "../support/stores.ts";

const BYTES = new Random(6).bytes(500_000);

describe.each([
  ["zstd", zstdDecompressSync, "28b52ffd"],
  ["gzip", gunzipSync, "1f8b08"],
] as const)("chunks in %s", (coding, decode, magic) => {
  test.each([BYTES.length, 70_000, 1000])(
    "of %d bytes are decoded to what they were",
    async (length) => {
      const pieces = await Array.fromAsync(encoded(chunksOf(BYTES, length), coding));
      const whole = concat(pieces);
      expect(whole.toHex().startsWith(magic)).toBe(true);
      expect(Buffer.compare(decode(whole), BYTES)).toBe(0);
      expect(pieces.length).toBeGreaterThan(1);
    },
  );

  test("of nothing are decoded to nothing", async () => {
    const pieces = await Array.fromAsync(encoded(chunksOf(new Uint8Array(), 1), coding));
    expect(decode(concat(pieces))).toHaveLength(0);
  });

  test("fail with the error of their source", async () => {
    const lost = new Error("lost");
    async function* failing() {
      yield BYTES.subarray(0, 1000);
      throw lost;
    }
    expect(await failure(Array.fromAsync(encoded(failing(), coding)))).toBe(lost);
  });

  test("are read only as they are wanted, and no more once nobody wants them", async () => {
    let read = 0;
    let isClosed = false;
    async function* endless() {
      try {
        for (;;) {
          read += BYTES.length;
          yield BYTES;
        }
      } finally {
        isClosed = true;
      }
    }
    const pieces = encoded(endless(), coding);
    for (let nth = 0; nth < 20; nth++) await pieces.next();
    await pieces.return(undefined);
    await eventually("closed", () => isClosed);
    expect(read).toBeLessThan(20 * BYTES.length);
  });
});

test("chunks without a coding are those of the source", async () => {
  const pieces = await Array.fromAsync(encoded(chunksOf(BYTES, 100_000), "identity"));
  expect(pieces.map(({ length }) => length)).toEqual([1, 2, 3, 4, 5].map(() => 100_000));
});
