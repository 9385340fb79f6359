import { describe, expect, test } from "bun:test";

import * as fc from "fast-check";

import { checkLength, checkMagic, footerBytes, readFooter } from "../../src/log/footer.ts";
import {
  FLAG,
  type Kind,
  RECORD_HEADER_BYTES,
  SegmentError,
  compareRecord,
  recordBody,
} from "../../src/log/record.ts";
import { type Segment, SegmentWriter, segmentKey } from "../../src/log/segment.ts";

const KINDS: Kind[] = ["batch", "session", "chunk", "image", "project"];
const TIME_MAX = 2 ** 45;

const facts = fc.record({
  bytes: fc.nat(),
  hash: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  messages: fc.nat(),
  firstAt: fc.option(fc.nat(TIME_MAX)),
  lastAt: fc.option(fc.nat(TIME_MAX)),
});

const record = fc.record({
  head: fc.record({
    kind: fc.constantFrom(...KINDS),
    flags: fc.nat(255),
    projectId: fc.nat(2 ** 31 - 1),
    sessionId: fc.bigInt({ min: 0n, max: 2n ** 63n - 1n }),
    receivedAt: fc.nat(TIME_MAX),
  }),
  body: fc.uint8Array({ maxLength: 300 }),
  facts: fc.option(facts, { nil: undefined }),
});

const hashed = record.map(({ head, body, facts: known }) => {
  const isInflated = (head.flags & FLAG.gzip) === 0;
  return { head, body, facts: known && isInflated ? { ...known, hash: hashOf(body) } : known };
});

const records = fc.array(hashed, { minLength: 1, maxLength: 30 });

type Records = typeof records extends fc.Arbitrary<infer Value> ? Value : never;

function hashOf(body: Uint8Array): bigint {
  return Bun.hash.xxHash3(body);
}

function write(all: Records): Segment {
  const writer = new SegmentWriter(new Uint8Array(64 * 1024));
  for (const { head, body, facts: known } of all) {
    expect(writer.fits(body.length)).toBe(true);
    writer.append(head, body, known);
  }
  return writer.seal(Bun.randomUUIDv7());
}

describe("a segment", () => {
  test("is read back as it was written", () => {
    fc.assert(
      fc.property(records, (all) => {
        const segment = write(all);
        const read = readFooter(segment.bytes);
        expect(read.id).toBe(segment.id);
        expect(read.entries).toEqual(segment.entries);
        for (const [index, { offset, length }] of read.entries.entries()) {
          const bytes = segment.bytes.subarray(offset - RECORD_HEADER_BYTES, offset + length);
          expect(recordBody(bytes)).toEqual(all[index]?.body ?? new Uint8Array());
        }
      }),
    );
  });

  test("is refused when its end is missing, wherever it was cut", () => {
    fc.assert(
      fc.property(records, fc.nat(), (all, at) => {
        const { bytes } = write(all);
        expect(() => readFooter(bytes.subarray(0, at % bytes.length))).toThrow(SegmentError);
      }),
    );
  });

  test("with one bit flipped is never taken for what was written", () => {
    fc.assert(
      fc.property(records, fc.nat(), fc.nat(7), (all, at, bit) => {
        const segment = write(all);
        const bytes = segment.bytes.slice();
        const index = at % bytes.length;
        bytes[index] = (bytes[index] ?? 0) ^ (1 << bit);
        expect(() => checkWhole(bytes)).toThrow(SegmentError);
      }),
    );
  });

  test("is sealed within its buffer however small the records are", () => {
    const writer = new SegmentWriter(new Uint8Array(16 * 1024));
    const head = {
      kind: "batch",
      flags: FLAG.gzip,
      projectId: 2 ** 32 - 1,
      sessionId: 2n ** 63n,
      receivedAt: TIME_MAX,
    } as const;
    const most = {
      bytes: 2 ** 31,
      hash: 2n ** 64n - 1n,
      messages: 2 ** 31,
      firstAt: TIME_MAX,
      lastAt: TIME_MAX,
    };
    while (writer.fits(1)) writer.append(head, new Uint8Array(1), most);
    const segment = writer.seal(Bun.randomUUIDv7());
    expect(segment.entries.length).toBeGreaterThan(50);
    expect(readFooter(segment.bytes).entries).toEqual(segment.entries);
  });

  test("of one large record has the buffer that was asked for", () => {
    const body = new Uint8Array(1_000_000).fill(7);
    const writer = new SegmentWriter(new Uint8Array(SegmentWriter.bytesFor(body.length)));
    expect(writer.fits(body.length)).toBe(true);
    // In whole pages.
    expect(writer.buffer.length % 4096).toBe(0);
    expect(writer.fits(body.length + 4096)).toBe(false);
  });

  test("has a key of its hour, from its id alone", () => {
    expect(segmentKey("0199c7e2-8c00-7abc-8def-0123456789ab")).toBe(
      "segments/2025/10/09/07/0199c7e2-8c00-7abc-8def-0123456789ab",
    );
  });
});

/** Checks a segment as `reindex` does. Throws SegmentError unless all of it is as it was written. */
function checkWhole(bytes: Uint8Array): void {
  const footer = readFooter(bytes);
  checkLength(footer, bytes.length, footerBytes(bytes));
  checkMagic(bytes);
  for (const entry of footer.entries) {
    const start = entry.offset - RECORD_HEADER_BYTES;
    const state = compareRecord(bytes.subarray(start, entry.offset + entry.length), entry);
    if (state !== "whole") throw new SegmentError(`a record is ${state}`);
  }
}
