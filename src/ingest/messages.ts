import { FrameCursor } from "./frames.ts";
import { Cursor } from "./varint.ts";

/** Integers above 2^53 - 1 are decimal strings, so that JSON keeps them. */
export type Field = string | number | boolean;

/** One client message. `timestamp` is epoch milliseconds by the client's clock. */
export type Message = {
  /** Position in the session: the index in BatchMeta plus one for the first message, and so on. */
  index: number | string;
  type: number;
  name: string;
  timestamp: number;
  /** Absent if the type is unknown or the body does not match its layouts. */
  fields?: Record<string, Field>;
  /** The undecoded body in base64, in place of `fields`. */
  body?: string;
  /** Set if the type is known, but the body does not match its layouts. */
  undecoded?: true;
};

type Kind = "text" | "uint" | "boolean" | "int32";
/** Fields in wire order. */
type Layout = Record<string, Kind>;

const CALL: Layout = { type: "text", method: "text", url: "text" };
const NETWORK_CALL: Layout = {
  ...CALL,
  request: "text",
  response: "text",
  status: "uint",
  duration: "uint",
};
/**
 * Layout that the Android SDK writes instead. Its bodies never match the layout above exactly: that
 * would take a status of 2^23 or more.
 */
const ANDROID_NETWORK_CALL: Layout = {
  ...CALL,
  response: "text",
  request: "text",
  status: "int32",
  duration: "uint",
};

/** Client messages of the OpenReplay mobile wire format: name, and the layouts to try in turn. */
const MESSAGE_TYPES = new Map<number, [name: string, ...layouts: Layout[]]>([
  [92, ["Metadata", { key: "text", value: "text" }]],
  [93, ["Event", { name: "text", payload: "text" }]],
  [94, ["UserID", { id: "text" }]],
  [95, ["UserAnonymousID", { id: "text" }]],
  [96, ["ScreenChanges", { x: "uint", y: "uint", w: "uint", h: "uint" }]],
  [97, ["Crash", { name: "text", reason: "text", stack: "text" }]],
  [98, ["ViewComponent", { screen: "text", view: "text", visible: "boolean" }]],
  [100, ["Click", { label: "text", x: "uint", y: "uint" }]],
  [101, ["Input", { value: "text", masked: "boolean", label: "text" }]],
  [102, ["Performance", { name: "text", value: "uint" }]],
  [103, ["Log", { severity: "text", content: "text" }]],
  [104, ["InternalError", { content: "text" }]],
  [105, ["NetworkCall", NETWORK_CALL, ANDROID_NETWORK_CALL]],
  [106, ["Swipe", { label: "text", x: "uint", y: "uint", direction: "text" }]],
  [
    109,
    [
      "GraphQL",
      { kind: "text", name: "text", variables: "text", response: "text", duration: "uint" },
    ],
  ],
]);

/**
 * Decodes the messages of a mobile batch, with one in memory at a time. Throws FrameError for the
 * batches for which `walkFrames` does, and only for those.
 */
export function* decodeMessages(bytes: Uint8Array): Generator<Message> {
  const frame = new FrameCursor(bytes);
  let index = new Cursor(bytes.subarray(frame.bodyStart, frame.bodyEnd)).bigUint() ?? 0n;
  while (frame.next()) {
    const { type, timestamp, bodyStart, bodyEnd } = frame;
    const body = bytes.subarray(bodyStart, bodyEnd);
    yield { index: plain(++index), type, timestamp, ...decodeBody(type, body) };
  }
}

function decodeBody(
  type: number,
  body: Uint8Array,
): Pick<Message, "name" | "fields" | "body" | "undecoded"> {
  const known = MESSAGE_TYPES.get(type);
  if (!known) return { name: "Unknown", body: body.toBase64() };
  const [name, ...layouts] = known;
  for (const layout of layouts) {
    const fields = decodeFields(layout, body);
    if (fields) return { name, fields };
  }
  return { name, body: body.toBase64(), undecoded: true };
}

/** Returns undefined unless the layout matches the whole body. */
function decodeFields(layout: Layout, body: Uint8Array): Record<string, Field> | undefined {
  const cursor = new Cursor(body);
  const fields: Record<string, Field> = {};
  for (const [name, kind] of Object.entries(layout)) {
    const field = READERS[kind](cursor);
    if (field === undefined) return undefined;
    fields[name] = field;
  }
  return cursor.offset === body.length ? fields : undefined;
}

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });

const READERS: Record<Kind, (cursor: Cursor) => Field | undefined> = {
  uint(cursor) {
    const value = cursor.bigUint();
    return value === undefined ? undefined : plain(value);
  },
  boolean(cursor) {
    const byte = cursor.bytes[cursor.offset++];
    return byte === undefined ? undefined : byte === 1;
  },
  int32(cursor) {
    const end = cursor.offset + 4;
    if (end > cursor.bytes.length) return undefined;
    let value = 0;
    while (cursor.offset < end) value = (value << 8) | (cursor.bytes[cursor.offset++] ?? 0);
    return value;
  },
  text(cursor) {
    const length = cursor.uint();
    const start = cursor.offset;
    if (!(length <= cursor.bytes.length - start)) return undefined; // Catches a length of NaN, too.
    cursor.offset += length;
    return utf8.decode(cursor.bytes.subarray(start, cursor.offset));
  },
};

function plain(value: bigint): number | string {
  return value <= Number.MAX_SAFE_INTEGER ? Number(value) : value.toString();
}
