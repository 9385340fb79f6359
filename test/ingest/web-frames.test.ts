import * as fc from "fast-check";
import { describe, expect, test } from "bun:test";
import { FrameError, type FrameFault } from "../../src/ingest/frames.ts";
import { walkManyWebFrames, walkWebFrames, webKindOf } from "../../src/ingest/web-frames.ts";
import { aBatch, concat, uint } from "../support/batches.ts";
import { WEB_VECTORS } from "../support/tracker-requests.ts";
import { encodeWebBatch, encodeWebFrame, encodeWebMessage } from "../support/web-batches.ts";

const T0 = 1_760_000_000_000;
const HEADER = encodeWebBatch([]);
const TAB = encodeWebMessage(118, "tab1");
const SERVER_TYPES = [1, 3, 31, 32, 33, 56, 66, 126, 127];
const REFUSED = new Set([81, ...SERVER_TYPES]);
const NINE_BYTES = Array.from({ length: 9 }, () => 0x80);

const time = fc.record({ type: fc.constant(0), at: fc.maxSafeNat() });
const other = fc.record({
  type: fc.oneof(fc.integer({ min: 1, max: 130 }), fc.nat(1_000_000)).filter(isTaken),
  body: fc.uint8Array({ maxLength: 300 }),
});
const parts = fc.array(fc.oneof(time, other));

function isTaken(type: number): boolean {
  return type !== 0 && !REFUSED.has(type);
}

function encoded(part: { type: number; at: number } | { type: number; body: Uint8Array }) {
  return "at" in part ? encodeWebMessage(0, part.at) : encodeWebFrame(part.type, part.body);
}

function headerAnd(...bytes: number[]): Uint8Array {
  return concat([HEADER, Uint8Array.from(bytes)]);
}

function header(version: number, ...rest: number[]): Uint8Array {
  return Uint8Array.of(81, version, ...rest);
}

/** Undefined for a batch that walks; anything thrown but a FrameError fails the test. */
function faultOf(bytes: Uint8Array): FrameFault | undefined {
  try {
    walkWebFrames(bytes);
    return undefined;
  } catch (error) {
    if (error instanceof FrameError) return error.reason;
    throw error;
  }
}

describe("a well-formed web batch", () => {
  test.each<[string, Uint8Array, number, number, number]>([
    ["of the pointer", WEB_VECTORS.move, 4, 90, 90],
    ["of a page", WEB_VECTORS.visual.subarray(0, 131), 10, 5, 60],
    ["of a page's assets", WEB_VECTORS.visual.subarray(131), 3, 30, 30],
    ["of a request", WEB_VECTORS.devtools, 3, 30, 30],
    ["of an event", WEB_VECTORS.analytics, 3, 30, 30],
    ["of a list", WEB_VECTORS.page, 30, 0, 40],
    ["of a list's styles", WEB_VECTORS.pageStyles, 5, 0, 40],
  ])("%s has its messages, the header's time and the latest time", (_what, bytes, ...rest) => {
    const [messages, first, last] = rest;
    const frames = { messages, firstAt: T0 + first, lastAt: T0 + last };
    expect(walkWebFrames(bytes)).toMatchObject(frames);
  });

  test("with nothing but its header has no messages and the header's time", () => {
    const batch = encodeWebBatch([], { timestamp: -5 });
    expect(walkWebFrames(batch)).toMatchObject({ messages: 0, firstAt: -5, lastAt: -5 });
  });

  test.each([
    [1, "web"],
    [2, "player"],
    [3, "assets"],
    [4, "devtools"],
    [5, "analytics"],
  ] as const)("of version %d is of the kind %s", (version, kind) => {
    expect(webKindOf(encodeWebBatch([TAB], { version }))).toBe(kind);
    expect(walkWebFrames(encodeWebBatch([TAB], { version }), kind).messages).toBe(1);
  });

  test("of any messages is counted exactly, at once and in turns", async () => {
    const sample = fc.tuple(parts, fc.integer({ min: -1_000_000, max: 2 * T0 }));
    const check = fc.asyncProperty(sample, async ([list, timestamp]) => {
      const times = list.map((part) => ("at" in part ? part.at : timestamp));
      const batch = encodeWebBatch(list.map(encoded), { timestamp });
      const frames = {
        messages: list.length,
        firstAt: timestamp,
        lastAt: Math.max(timestamp, ...times),
      };
      expect(walkWebFrames(batch)).toMatchObject(frames);
      expect(await walkManyWebFrames(batch)).toMatchObject(frames);
    });
    await fc.assert(check);
  });

  test("of more messages than one turn takes is counted in turns", async () => {
    for (const messages of [19_999, 20_000, 20_001, 40_000]) {
      const batch = encodeWebBatch(Array.from({ length: messages }, () => TAB));
      expect((await walkManyWebFrames(batch)).messages).toBe(messages);
    }
  });

  test("may be a view into a larger buffer, and have a body of the largest size", () => {
    const large = encodeWebFrame(61, new Uint8Array(0xff_ff_ff));
    const padded = concat([Uint8Array.of(1, 2, 3), HEADER, large, TAB, Uint8Array.of(81)]);
    expect(walkWebFrames(padded.subarray(3, -1)).messages).toBe(2);
  });
});

describe("a malformed web batch is refused with its reason", () => {
  test.each<[FrameFault, string, Uint8Array]>([
    ["truncated", "nothing at all", new Uint8Array()],
    ["truncated", "a header without a location", header(2, 0, 0, 0)],
    ["leading_type", "a mobile batch", aBatch()],
    ["leading_type", "a message before the header", concat([TAB, HEADER])],
    ["leading_type", "a header of the next tracker", Uint8Array.of(86, 2, 0, 0, 0, 0)],
    ["version", "version 0", header(0, 0, 0, 0, 0)],
    ["version", "version 6", header(6, 0, 0, 0, 0)],
    ["varint", "an index above 64 bits", header(2, 0, ...NINE_BYTES, 2, 0, 0)],
    ["overrun", "a location longer than the batch", header(2, 0, 0, 0, 1)],
    ["second_meta", "a header amid the messages", concat([HEADER, TAB, HEADER])],
    ["truncated", "a type without a size", headerAnd(118)],
    ["truncated", "a type and half a size", headerAnd(118, 1, 0)],
    ["truncated", "half a type", headerAnd(0x80)],
    ["overrun", "a body longer than the batch", headerAnd(118, 1, 0, 0)],
    ["overrun", "a body of 16 MB", headerAnd(118, 255, 255, 255, 0)],
    ["overrun", "a time longer than its body", headerAnd(0, 1, 0, 0, 0x80, 1)],
    ["truncated", "a time without a body", headerAnd(0, 0, 0, 0)],
    ["varint", "a time of 2^53", concat([headerAnd(0, 8, 0, 0), uint(2 ** 53)])],
    ...SERVER_TYPES.map((type): [FrameFault, string, Uint8Array] => [
      "server_type",
      `the server's type ${type}`,
      concat([HEADER, encodeWebFrame(type, Uint8Array.of(0))]),
    ]),
  ])("%s: %s", (reason, _what, bytes) => {
    expect(faultOf(bytes)).toBe(reason);
  });

  test("version: a batch of another kind than expected", () => {
    expect(() => walkWebFrames(WEB_VECTORS.devtools, "player")).toThrow(new FrameError("version"));
  });

  test("and is of the kind web if its header cannot be read", () => {
    expect(webKindOf(Uint8Array.of(81, 6, 0, 0, 0, 0))).toBe("web");
    expect(webKindOf(concat([WEB_VECTORS.devtools, HEADER]))).toBe("devtools");
  });

  test("a truncated batch never walks as one with as many messages", () => {
    fc.assert(
      fc.property(parts, fc.nat(), (list, seed) => {
        const batch = encodeWebBatch(list.map(encoded));
        const cut = batch.subarray(0, seed % batch.length);
        if (faultOf(cut) === undefined)
          expect(walkWebFrames(cut).messages).toBeLessThan(list.length);
      }),
      { numRuns: 2_000 },
    );
  });

  test("arbitrary bytes walk or throw a FrameError", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 500 }), (bytes) => {
        faultOf(bytes);
        faultOf(concat([Uint8Array.of(81, 2), bytes]));
        const batch = concat([HEADER, bytes]);
        if (faultOf(batch) === undefined)
          expect(walkWebFrames(batch).messages).toBeLessThanOrEqual(bytes.length / 4);
      }),
      { numRuns: 5_000 },
    );
  });
});
