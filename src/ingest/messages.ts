import { type Layout, type Message, type MessageTypes, decodeBody, plain } from "./decoding.ts";
import { FrameCursor } from "./frames.ts";

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

/**
 * Client messages of the OpenReplay mobile wire format: name, the documented layout, and others to
 * try in turn.
 */
export const MESSAGE_TYPES: MessageTypes = new Map<number, [name: string, ...layouts: Layout[]]>([
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
  let index = frame.firstIndex;
  while (frame.next()) {
    const { type, timestamp, body } = frame;
    yield { index: plain(++index), type, timestamp, ...decodeBody(MESSAGE_TYPES, type, body) };
  }
}
