import * as fc from "fast-check";
import { describe, expect, test } from "bun:test";
import { walkFrames } from "../../src/ingest/frames.ts";
import { type Message } from "../../src/ingest/decoding.ts";
import { decodeMessages } from "../../src/ingest/messages.ts";
import { resultOrFault } from "../support/frame-faults.ts";
import {
  concat,
  encodeBatch,
  encodeField,
  encodeFrame,
  encodeMessage,
  type WireField,
} from "../support/batches.ts";

const T0 = 1_760_000_000_000;

function decode(...messages: Uint8Array[]): Message[] {
  return [...decodeMessages(encodeBatch(messages, { timestamp: T0 }))];
}

function decodeOne(message: Uint8Array): Omit<Message, "index" | "timestamp" | "type"> {
  const [decoded] = decode(message);
  if (!decoded) throw new Error("The batch has no message.");
  const { index: _index, timestamp: _timestamp, type: _type, ...rest } = decoded;
  return rest;
}

test("a batch of a click and a metadata message reads back with names, fields and indexes", () => {
  const sample = "6b8080b3c19c330100648580b3c19c3305024f4b0a145c8680b3c19c330904706c616e0370726f";
  expect([...decodeMessages(Uint8Array.fromHex(sample))]).toEqual([
    {
      index: 1,
      type: 100,
      name: "Click",
      timestamp: T0 + 5,
      fields: { label: "OK", x: 10, y: 20 },
    },
    {
      index: 2,
      type: 92,
      name: "Metadata",
      timestamp: T0 + 6,
      fields: { key: "plan", value: "pro" },
    },
  ]);
});

describe("every client type reads back", () => {
  test.each<[number, string, Record<string, string | number | boolean>]>([
    [92, "Metadata", { key: "plan", value: "pro" }],
    [93, "Event", { name: "bought", payload: '{"a":1}' }],
    [94, "UserID", { id: "u-1" }],
    [95, "UserAnonymousID", { id: "" }],
    [96, "ScreenChanges", { x: 0, y: 1, w: 390, h: 844 }],
    [97, "Crash", { name: "NSException", reason: "nil", stack: "0 main\n1 start" }],
    [98, "ViewComponent", { screen: "Home", view: "list", visible: true }],
    [100, "Click", { label: "Kauf – jetzt 🛒", x: 128, y: 16_384 }],
    [101, "Input", { value: "***", masked: false, label: "password" }],
    [102, "Performance", { name: "memoryUsage", value: 9_007_199_254_740_991 }],
    [103, "Log", { severity: "info", content: "\uFEFFbyte order mark" }],
    [104, "InternalError", { content: "oops" }],
    [
      105,
      "NetworkCall",
      {
        type: "fetch",
        method: "GET",
        url: "/a",
        request: "req",
        response: "resp",
        status: 404,
        duration: 12,
      },
    ],
    [106, "Swipe", { label: "card", x: 1, y: 2, direction: "left" }],
    [
      109,
      "GraphQL",
      { kind: "query", name: "feed", variables: "{}", response: "{}", duration: 31 },
    ],
  ])("%d as %s", (type, name, fields) => {
    expect(decodeOne(encodeMessage(type, T0, ...Object.values(fields)))).toEqual({ name, fields });
  });
});

describe("a network call of the Android SDK", () => {
  test("has its response before its request and four bytes of status", () => {
    const sample = Uint8Array.fromHex(
      "698780b3c19c331b05666574636803474554022f61047265737003726571000001940c",
    );
    const fields = {
      type: "fetch",
      method: "GET",
      url: "/a",
      response: "resp",
      request: "req",
      status: 404,
      duration: 12,
    };
    expect(decodeOne(sample)).toEqual({ name: "NetworkCall", fields });
    expect(decodeOne(androidCall(404, 12))).toEqual({ name: "NetworkCall", fields });
  });

  test("is told apart from the other layout whatever its status and duration", () => {
    fc.assert(
      fc.property(fc.integer({ min: -1, max: 65_535 }), fc.maxSafeNat(), (status, duration) => {
        expect(decodeOne(androidCall(status, duration)).fields).toMatchObject({
          request: "req",
          response: "resp",
          status,
          duration,
        });
        const other = encodeMessage(
          105,
          T0,
          "fetch",
          "GET",
          "/a",
          "req",
          "resp",
          Math.abs(status),
          duration,
        );
        expect(decodeOne(other).fields).toMatchObject({
          request: "req",
          response: "resp",
          status: Math.abs(status),
          duration,
        });
      }),
      { numRuns: 2_000 },
    );
  });
});

describe("what cannot be decoded is handed back as it is", () => {
  test("an unknown type keeps its body", () => {
    expect(decodeOne(encodeFrame(1_234, T0, Uint8Array.of(0, 255)))).toEqual({
      name: "Unknown",
      body: "AP8=",
    });
  });

  test.each<[string, Uint8Array]>([
    ["too short", Uint8Array.of(2, 79)],
    ["empty", new Uint8Array()],
    ["too long", Uint8Array.of(2, 79, 75, 10, 20, 30)],
    ["of a string longer than the body", Uint8Array.of(200, 1, 79)],
    ["of a number above 64 bits", Uint8Array.of(0, 1, ...Array.from({ length: 9 }, () => 0x80), 2)],
  ])("a known type whose body is %s says so", (_what, body) => {
    expect(decodeOne(encodeFrame(100, T0, body))).toEqual({
      name: "Click",
      body: Buffer.from(body).toString("base64"),
      undecoded: true,
    });
  });

  test("text that is no UTF-8 gets replacement characters", () => {
    expect(decodeOne(encodeFrame(94, T0, Uint8Array.of(2, 65, 0xff))).fields).toEqual({
      id: "A\uFFFD",
    });
  });
});

describe("numbers above 2^53 - 1 are decimal strings", () => {
  test("in fields", () => {
    expect(decodeOne(encodeMessage(102, T0, "a", 2n ** 53n)).fields).toEqual({
      name: "a",
      value: "9007199254740992",
    });
    expect(decodeOne(encodeMessage(102, T0, "a", 2n ** 64n - 1n)).fields).toEqual({
      name: "a",
      value: "18446744073709551615",
    });
  });

  test("as indexes, from the message where they pass it", () => {
    const messages = [1, 2].map((n) => encodeMessage(94, T0 + n, "u"));
    const batch = encodeBatch(messages, { firstIndex: 2 ** 53 - 2, timestamp: T0 });
    expect([...decodeMessages(batch)].map(({ index }) => index)).toEqual([
      2 ** 53 - 1,
      "9007199254740992",
    ]);
  });
});

test("a boolean is true only as 1", () => {
  const fields = [0, 1, 2, 255].map(
    (byte) => decodeOne(encodeFrame(98, T0, Uint8Array.of(0, 0, byte))).fields?.["visible"],
  );
  expect(fields).toEqual([false, true, false, false]);
});

test("indexes go on from the header's", () => {
  const batch = encodeBatch([encodeMessage(94, T0, "a"), encodeMessage(94, T0, "b")], {
    firstIndex: 41,
  });
  expect([...decodeMessages(batch)].map(({ index }) => index)).toEqual([42, 43]);
});

test.each([
  ["the bytes of the index", "6b8080b3c19c330100648580b3c19c3305024f4b0a14"],
  ["the bytes of the batch that are replayed", "6b8080b3c19c331600648580b3c19c3305024f4b0a14"],
  ["nothing", "6b8080b3c19c330000648580b3c19c3305024f4b0a14"],
])("a header whose length counts %s is followed by one click", (_what, hex) => {
  const batch = Uint8Array.fromHex(hex);
  const fields = { label: "OK", x: 10, y: 20 };
  expect([...decodeMessages(batch)]).toEqual([
    { index: 1, type: 100, name: "Click", timestamp: T0 + 5, fields },
  ]);
  expect(walkFrames(batch)).toMatchObject({ messages: 1, firstAt: T0, lastAt: T0 + 5 });
});

test("whatever the walker accepts is decoded to as many messages, and to JSON", () => {
  const field = fc.oneof<fc.Arbitrary<WireField>[]>(fc.string(), fc.maxSafeNat(), fc.boolean());
  const body = fc.oneof(
    fc.uint8Array(),
    fc.array(field).map((fields) => concat(fields.map(encodeField))),
  );
  const part = fc.record({ type: fc.integer({ min: 92, max: 112 }), at: fc.maxSafeNat(), body });
  fc.assert(
    fc.property(fc.array(part), (parts) => {
      const batch = encodeBatch(
        parts.map(({ type, at, body: bytes }) => encodeFrame(type, at, bytes)),
      );
      const walked = resultOrFault(() => walkFrames(batch).messages);
      const decoded = resultOrFault(() => [...decodeMessages(batch)]);
      expect(Array.isArray(decoded) ? decoded.length : decoded).toBe(walked);
      expect(JSON.parse(JSON.stringify(decoded))).toEqual(decoded);
    }),
    { numRuns: 1_000 },
  );
});

function androidCall(status: number, duration: number): Uint8Array {
  const bigEndian = Buffer.alloc(4);
  bigEndian.writeInt32BE(status);
  const texts = ["fetch", "GET", "/a", "resp", "req"].map(encodeField);
  return encodeFrame(105, T0, concat([...texts, bigEndian, encodeField(duration)]));
}
