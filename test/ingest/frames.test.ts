import * as fc from "fast-check";
import { describe, expect, test } from "bun:test";
import { FrameError, type FrameFault, walkFrames } from "../../src/ingest/frames.ts";
import {
  aBatch,
  concat,
  encodeBatch,
  encodeFrame,
  encodeMessage,
  uint,
} from "../support/batches.ts";

const T0 = 1_760_000_000_000;
const META = encodeBatch([], { timestamp: T0 });
const CLICK = encodeMessage(100, T0 + 5, "OK", 10, 20);
const NINE_BYTES = Array.from({ length: 9 }, () => 0x80);
const RESERVED = [90, 91, 107, 110, 111];

const frame = fc.record({
  type: fc.nat(1_000).filter((type) => !RESERVED.includes(type)),
  at: fc.maxSafeNat(),
  body: fc.uint8Array({ maxLength: 200 }),
});
const frames = fc.array(frame);

function batchOf(parts: { type: number; at: number; body: Uint8Array }[]): Uint8Array {
  return encodeBatch(
    parts.map(({ type, at, body }) => encodeFrame(type, at, body)),
    { timestamp: T0 },
  );
}

function metaAnd(...bytes: number[]): Uint8Array {
  return concat([META, Uint8Array.from(bytes)]);
}

/** Undefined for a batch that walks; anything thrown but a FrameError fails the test. */
function faultOf(bytes: Uint8Array): FrameFault | undefined {
  try {
    walkFrames(bytes);
    return undefined;
  } catch (error) {
    if (error instanceof FrameError) return error.reason;
    throw error;
  }
}

describe("a well-formed batch", () => {
  test("of a click and a metadata message has two messages and the time of the last", () => {
    const sample = "6b8080b3c19c330100648580b3c19c3305024f4b0a145c8680b3c19c330904706c616e0370726f";
    expect(walkFrames(Uint8Array.fromHex(sample))).toMatchObject({
      messages: 2,
      firstAt: T0,
      lastAt: T0 + 6,
    });
  });

  test("holds a network call as Android writes it", () => {
    const call = "698780b3c19c331b05666574636803474554022f61047265737003726571000001940c";
    const walked = walkFrames(concat([META, Uint8Array.fromHex(call)]));
    expect(walked).toMatchObject({ messages: 1, firstAt: T0, lastAt: T0 + 7 });
  });

  test("with nothing but its header has no messages and the header's time", () => {
    expect(walkFrames(META)).toMatchObject({ messages: 0, firstAt: T0, lastAt: T0 });
  });

  test("of any messages is counted exactly, with the earliest and latest time of all", () => {
    fc.assert(
      fc.property(frames, (parts) => {
        const times = [T0, ...parts.map(({ at }) => at)];
        expect(walkFrames(batchOf(parts))).toMatchObject({
          messages: parts.length,
          firstAt: Math.min(...times),
          lastAt: Math.max(...times),
        });
      }),
    );
  });

  test("may be a view into a larger buffer", () => {
    const padded = concat([Uint8Array.of(1, 2, 3), META, CLICK, Uint8Array.of(90)]);
    expect(walkFrames(padded.subarray(3, -1)).messages).toBe(1);
  });

  test("of the test encoder has the size and count that were asked for", () => {
    const batch = aBatch({ messages: 160, bytes: 16_384, salt: "a" });
    expect(Math.abs(batch.length - 16_384)).toBeLessThan(400);
    expect(walkFrames(batch)).toMatchObject({ messages: 160, firstAt: T0, lastAt: T0 + 160 });
    expect(aBatch({ salt: "b" })).not.toEqual(aBatch({ salt: "a" }));
  });
});

describe("a malformed batch is refused with its reason", () => {
  test.each<[FrameFault, string, Uint8Array]>([
    ["truncated", "nothing at all", new Uint8Array()],
    ["truncated", "a type and no more", metaAnd(100)],
    ["truncated", "half a timestamp", metaAnd(100, 0x80)],
    ["leading_type", "a web batch", Uint8Array.fromHex("5102030bb481e682b9660d")],
    ["leading_type", "a message before the header", concat([CLICK, META])],
    ["second_meta", "a header amid the messages", concat([META, CLICK, META])],
    ["overrun", "a body longer than the batch", metaAnd(100, 0, 1)],
    ["truncated", "a header without its index", META.subarray(0, -1)],
    [
      "varint",
      "an index above 64 bits",
      concat([META.subarray(0, -1), Uint8Array.of(...NINE_BYTES, 2)]),
    ],
    ["overrun", "a length that would overflow 32 bits", concat([metaAnd(100, 0), uint(2 ** 32)])],
    ["varint", "a number of eleven bytes", metaAnd(100, ...NINE_BYTES, 0x80, 0)],
    ["varint", "a number above 64 bits", metaAnd(100, ...NINE_BYTES, 2, 0)],
    ["varint", "a timestamp of 2^53", concat([metaAnd(100), uint(2 ** 53), uint(0)])],
    ["varint", "a timestamp of 2^64 - 1", concat([metaAnd(100), uint(2n ** 64n - 1n), uint(0)])],
    ["server_type", "SessionStart", metaAnd(90, 0, 0)],
    ["server_type", "SessionEnd", metaAnd(91, 0, 0)],
    ["server_type", "PerformanceAggregated", metaAnd(110, 0, 0)],
    ["server_type", "Issue", metaAnd(111, 0, 0)],
  ])("%s: %s", (reason, _what, bytes) => {
    expect(faultOf(bytes)).toBe(reason);
  });

  test("a timestamp of 2^53 - 1 is well-formed", () => {
    expect(
      walkFrames(batchOf([{ type: 100, at: 2 ** 53 - 1, body: new Uint8Array() }])).lastAt,
    ).toBe(2 ** 53 - 1);
  });

  test("a truncated batch never walks as one with as many messages", () => {
    fc.assert(
      fc.property(frames, fc.nat(), (parts, seed) => {
        const batch = batchOf(parts);
        const cut = batch.subarray(0, seed % batch.length);
        if (faultOf(cut) === undefined) expect(walkFrames(cut).messages).toBeLessThan(parts.length);
      }),
      { numRuns: 2_000 },
    );
  });

  test("arbitrary bytes walk or throw a FrameError", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 500 }), (bytes) => {
        const batch = concat([META, bytes]);
        faultOf(bytes);
        if (faultOf(batch) === undefined)
          expect(walkFrames(batch).messages).toBeLessThanOrEqual(bytes.length / 3);
      }),
      { numRuns: 5_000 },
    );
  });
});
