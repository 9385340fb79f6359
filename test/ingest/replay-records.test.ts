import { describe, expect, test } from "bun:test";

import { firstIndexOf, replayRecords } from "../../src/ingest/replay-records.ts";
import {
  type WireField,
  concat,
  encodeBatch,
  encodeFrame,
  encodeMessage,
} from "../support/batches.ts";

const T0 = 1_760_000_000_000;
const FROM_ANDROID = Uint8Array.fromHex(
  "698780b3c19c331b05666574636803474554022f61047265737003726571000001940c",
);
const AS_DOCUMENTED = Uint8Array.fromHex(
  "698780b3c19c331905666574636803474554022f6103726571047265737094030c",
);
const CLICK = encodeMessage(100, T0 + 5, "OK", 10, 20);

function recordsOf(batch: Uint8Array, after = -1n): { bytes: Uint8Array; last: bigint } {
  const records = replayRecords(batch, after);
  const pieces: Uint8Array[] = [];
  for (;;) {
    const { done, value } = records.next();
    if (done === true) return { bytes: concat(pieces), last: value };
    pieces.push(value);
  }
}

/** A message behind its index. */
function record(index: bigint, message: Uint8Array): Uint8Array {
  const head = Buffer.alloc(8);
  head.writeBigUInt64LE(index);
  return concat([head, message]);
}

test("a message is kept as it was sent, behind its index", () => {
  const { bytes, last } = recordsOf(encodeBatch([CLICK]));
  expect(bytes.toHex()).toBe("0100000000000000648580b3c19c3305024f4b0a14");
  expect(last).toBe(1n);
});

test.each([
  ["the bytes of the index", "6b8080b3c19c330100"],
  ["the bytes of the batch", "6b8080b3c19c331600"],
])("a head whose length counts %s yields the same message", (_what, head) => {
  const batch = concat([Uint8Array.fromHex(head), CLICK]);
  expect(recordsOf(batch)).toEqual({ bytes: record(1n, CLICK), last: 1n });
});

test("what Android writes of a network call is encoded as it is documented", () => {
  const batch = encodeBatch([CLICK, FROM_ANDROID, AS_DOCUMENTED, CLICK], { firstIndex: 6 });
  const kept = [CLICK, AS_DOCUMENTED, AS_DOCUMENTED, CLICK];
  const records = kept.map((message, nth) => record(BigInt(7 + nth), message));
  expect(recordsOf(batch).bytes).toEqual(concat(records));
});

const KEPT: [type: number, ...WireField[]][] = [
  [93, "bought", "{}"],
  [96, 1, 2, 3, 4],
  [100, "OK", 10, 20],
  [101, "text", false, "name"],
  [102, "batteryLevel", 80],
  [103, "info", "line"],
  [104, "failed"],
  [105, "fetch", "GET", "/a", "req", "resp", 404, 12],
  [106, "list", 1, 2, "up"],
  [109, "query", "name", "{}", "{}", 3],
];

test.each(KEPT)("messages of type %d are kept, but none with other fields", (type, ...fields) => {
  const whole = encodeMessage(type, T0, ...fields);
  const body = bodyOf(type, fields);
  const longer = encodeFrame(type, T0, concat([body, Uint8Array.of(0)]));
  const shorter = encodeFrame(type, T0, body.subarray(0, -1));
  const batch = encodeBatch([longer, whole, shorter, CLICK]);
  expect(recordsOf(batch).bytes).toEqual(concat([record(2n, whole), record(4n, CLICK)]));
});

function bodyOf(type: number, fields: WireField[]): Uint8Array {
  const head = encodeFrame(type, T0, new Uint8Array());
  return encodeMessage(type, T0, ...fields).subarray(head.length);
}

test.each([92, 94, 95, 97, 98, 99, 7, 112, 127])("messages of type %d are left out", (type) => {
  const batch = encodeBatch([encodeMessage(type, T0, "a", "b"), CLICK]);
  expect(recordsOf(batch)).toEqual({ bytes: record(2n, CLICK), last: 2n });
});

test("messages up to a given index are left out, and the last index counts all", () => {
  const batch = encodeBatch([CLICK, CLICK, CLICK, encodeMessage(92, T0, "a", "b")], {
    firstIndex: 10,
  });
  expect(recordsOf(batch, 12n)).toEqual({ bytes: record(13n, CLICK), last: 14n });
  expect(recordsOf(batch, 99n)).toEqual({ bytes: new Uint8Array(), last: 99n });
});

test("indexes end with the largest that a record can hold", () => {
  const max = 2n ** 64n - 1n;
  const batch = encodeBatch([CLICK, CLICK], { firstIndex: max - 1n });
  expect(recordsOf(batch)).toEqual({ bytes: record(max, CLICK), last: max });
});

test("many messages and long ones come in pieces, in order", () => {
  const long = encodeMessage(103, T0, "info", "x".repeat(200_000));
  const messages = Array.from({ length: 9000 }, (_, nth) => (nth % 3000 === 0 ? long : CLICK));
  const records = replayRecords(encodeBatch(messages), -1n);
  const pieces = [...records];
  expect(pieces.length).toBeGreaterThan(3);
  for (const { length } of pieces) expect(length).toBeLessThan(201_000);
  expect(concat(pieces)).toEqual(
    concat(messages.map((message, nth) => record(BigInt(nth + 1), message))),
  );
});

describe("of a batch that is malformed", () => {
  test("the messages before the fault are kept", () => {
    const batch = encodeBatch([CLICK, CLICK]).subarray(0, -1);
    expect(recordsOf(batch)).toEqual({ bytes: record(1n, CLICK), last: 1n });
    expect(recordsOf(Buffer.from("no batch"))).toEqual({ bytes: new Uint8Array(), last: -1n });
  });

  test("the first index is unknown if its head is", () => {
    expect(firstIndexOf(Buffer.from("no batch"))).toBeUndefined();
    expect(firstIndexOf(new Uint8Array())).toBeUndefined();
    expect(firstIndexOf(encodeBatch([CLICK], { firstIndex: 7 }).subarray(0, -1))).toBe(7n);
  });
});
