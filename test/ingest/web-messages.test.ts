import * as fc from "fast-check";
import { describe, expect, test } from "bun:test";
import { type Message } from "../../src/ingest/decoding.ts";
import { walkWebFrames } from "../../src/ingest/web-frames.ts";
import { decodeWebHeader, decodeWebMessages } from "../../src/ingest/web-messages.ts";
import { type WireField } from "../support/batches.ts";
import { WEB_VECTORS } from "../support/tracker-requests.ts";
import { resultOrFault } from "../support/frame-faults.ts";
import {
  encodeWebBatch,
  encodeWebFrame,
  encodeWebMessage,
  zigzag,
} from "../support/web-batches.ts";

const T0 = 1_760_000_000_000;

/** Types, names and the encodings of fields: unsigned, integer, string, boolean. */
const TYPES = `
  0 Timestamp u; 4 SetPageLocation ssu; 5 SetViewportSize uu; 6 SetViewportScroll ii
  7 CreateDocument -; 8 CreateElementNode uuusb; 9 CreateTextNode uuu; 10 MoveNode uuu
  11 RemoveNode u; 12 SetNodeAttribute uss; 13 RemoveNodeAttribute us; 14 SetNodeData us
  15 SetCSSData us; 16 SetNodeScroll uii; 17 SetInputTarget us; 18 SetInputValue usi
  19 SetInputChecked ub; 20 MouseMove uu; 21 NetworkRequest sssssuuu; 22 ConsoleLog ss
  23 PageLoadTiming uuuuuuuuu; 24 PageRenderTiming uuu; 27 CustomEvent ss; 28 UserID s
  29 UserAnonymousID s; 30 Metadata ss; 34 StringDictGlobal us
  35 SetNodeAttributeDictGlobal uuu; 36 NodeAnimationResult us; 40 Profiler suss
  41 OTable ss; 42 StateAction s; 43 StringDict ss; 44 Redux ssu; 45 Vuex ss; 46 MobX ss
  47 NgRx ssu; 48 GraphQL ssssi; 49 PerformanceTrack iiuu; 50 StringDict us
  51 SetNodeAttributeDict uuu; 52 SetNodeAttributeDict uss; 53 ResourceTiming uuuuuuss
  54 ConnectionInformation us; 55 SetPageVisibility b; 57 LoadFontFace usss
  58 SetNodeFocus i; 60 SetNodeAttributeURLBased usss; 61 SetCSSDataURLBased uss
  63 TechnicalInfo ss; 64 CustomIssue ss; 65 SetNodeSlot uu; 68 MouseClick uussuu
  69 MouseClick uuss; 70 CreateIFrameDocument uu; 71 AdoptedSSReplaceURLBased uss
  72 AdoptedSSReplace us; 73 AdoptedSSInsertRuleURLBased usus; 74 AdoptedSSInsertRule usu
  75 AdoptedSSDeleteRule uu; 76 AdoptedSSAddOwner uu; 77 AdoptedSSRemoveOwner uu
  78 JSException ssss; 79 Zustand ss; 83 NetworkRequest sssssuuuu; 84 WSChannel sssuss
  85 ResourceTiming uuuuuussubuuuuuuu; 87 Incident sii; 89 LongAnimationTask siiiis
  112 InputChange usbsii; 113 SelectionChange uus; 114 MouseThrashing u; 115 UnbindNodes u
  116 ResourceTiming uuuuuussub; 117 TabChange s; 118 TabData s; 119 CanvasNode su
  120 TagTrigger i; 121 Redux ssuu; 122 SetPageLocation ssus; 123 GraphQL ssssu
  124 WebVitals ss; 125 IssueEvent uusssss
`
  .split(/[;\n]/)
  .map((entry) => entry.trim().split(" "))
  .filter(([type]) => type !== "");

const VALUES: Record<string, [decoded: string | number | boolean, sent: WireField]> = {
  u: [1_760_000_000_123, 1_760_000_000_123],
  i: [-3, zigzag(-3)],
  s: ["Straße 🛒", "Straße 🛒"],
  b: [true, true],
};

function decode(batch: Uint8Array): Message[] {
  return [...decodeWebMessages(batch)];
}

test("every type of the tracker reads back with its fields, and none is left out", () => {
  const known = new Set<number>();
  for (const [type = "", name, encodings = ""] of TYPES) {
    const values = encodings.split("").flatMap((letter) => {
      const value = VALUES[letter]; // None for the dash of a type without fields.
      return value === undefined ? [] : [value];
    });
    const message = encodeWebMessage(Number(type), ...values.map(([, sent]) => sent));
    const [decoded] = decode(encodeWebBatch([message]));
    expect(decoded).toMatchObject({ type: Number(type), name });
    const fields = Object.values(decoded?.fields ?? {});
    expect([type, ...fields]).toEqual([type, ...values.map(([value]) => value)]);
    known.add(Number(type));
  }
  const SERVER_TYPES = [1, 3, 31, 32, 33, 56, 66, 81, 126, 127];
  for (let type = 0; type < 200; type++) {
    if (SERVER_TYPES.includes(type) || known.has(type)) continue;
    const [decoded] = decode(encodeWebBatch([encodeWebFrame(type, Uint8Array.of(1))]));
    expect(decoded).toEqual({ index: 1, type, name: "Unknown", timestamp: T0, body: "AQ==" });
  }
});

describe("a page with a list", () => {
  test("has its header", () => {
    expect(decodeWebHeader(WEB_VECTORS.page)).toEqual({
      version: 2,
      pageNo: 0,
      firstIndex: 0,
      timestamp: T0,
      location: "https://a.b/c",
    });
  });

  test("has its nodes, and the time of the last Timestamp message", () => {
    const messages = decode(WEB_VECTORS.page);
    expect(messages.map(({ index }) => index)).toEqual(messages.map((_, n) => n + 1));
    expect(messages.every(({ fields }) => fields !== undefined)).toBe(true);
    expect(messages.filter(({ name }) => name === "CreateElementNode")).toHaveLength(9);
    const [first, last] = [messages[4], messages.at(-1)];
    expect(first).toEqual({
      index: 5,
      type: 8,
      name: "CreateElementNode",
      timestamp: T0,
      fields: { id: 1, parent: 0, index: 0, tag: "HEAD", svg: false },
    });
    expect(last).toMatchObject({ name: "MoveNode", timestamp: T0 + 40 });
  });

  test("has its styles in the other stream", () => {
    expect(decode(WEB_VECTORS.pageStyles).at(-1)).toEqual({
      index: 8,
      type: 60,
      name: "SetNodeAttributeURLBased",
      timestamp: T0 + 40,
      fields: { id: 5, name: "style", value: "color:red", baseURL: "https://a.b/c" },
    });
  });
});

test("the index is the page's number times 2^32, and goes on from the header's", () => {
  const header = { pageNo: 3, firstIndex: 11 };
  const tab = encodeWebMessage(118, "tab1");
  const indexes = (pageNo: number) =>
    decode(encodeWebBatch([tab, tab], { ...header, pageNo })).map(({ index }) => index);
  expect(indexes(3)).toEqual([3 * 2 ** 32 + 12, 3 * 2 ** 32 + 13]);
  expect(indexes(2 ** 22)).toEqual(["18014398509481996", "18014398509481997"]);
});

test("a body that does not match its type says so", () => {
  const bodies = [[], [5], [5, 6, 7], [0x80]].map((bytes) => Uint8Array.from(bytes));
  for (const body of bodies) {
    const [decoded] = decode(encodeWebBatch([encodeWebFrame(20, body)]));
    expect(decoded).toEqual({
      index: 1,
      type: 20,
      name: "MouseMove",
      timestamp: T0,
      body: Buffer.from(body).toString("base64"),
      undecoded: true,
    });
  }
});

test("signed numbers are read up to 64 bits, as decimal strings beyond 2^53 - 1", () => {
  const sent = [zigzag(-1), 2n ** 64n - 1n, 2n ** 64n - 2n, zigzag(-(2 ** 53 - 1))];
  const messages = sent.map((value) => encodeWebMessage(120, value));
  const tags = decode(encodeWebBatch(messages)).map(({ fields }) => fields?.["tagId"]);
  expect(tags).toEqual([-1, "-9223372036854775808", "9223372036854775807", -(2 ** 53 - 1)]);
});

test("whatever the walker accepts is decoded to as many messages, and to JSON", () => {
  const part = fc.record({ type: fc.nat(130), body: fc.uint8Array() });
  fc.assert(
    fc.property(fc.array(part), (list) => {
      const batch = encodeWebBatch(list.map(({ type, body }) => encodeWebFrame(type, body)));
      const walked = resultOrFault(() => walkWebFrames(batch).messages);
      const decoded = resultOrFault(() => decode(batch));
      expect(Array.isArray(decoded) ? decoded.length : decoded).toBe(walked);
      expect(JSON.parse(JSON.stringify(decoded))).toEqual(decoded);
    }),
    { numRuns: 1_000 },
  );
});
