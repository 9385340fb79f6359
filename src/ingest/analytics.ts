import { isUtf8 } from "node:buffer";

import { isRecord, parseJson } from "../platform/json.ts";
import { FrameError, type Frames } from "./frames.ts";
import { Labels } from "./labels.ts";
import { noSigns } from "./signs.ts";

// Parsing cannot be interrupted. Larger batches are stored as they are, and only counted as batches.
const READ_BYTES_MAX = 2 ** 20 + 64 * 1024;
const DEPTH_MAX = 100;
const UTF8 = new TextDecoder();
const [QUOTE, BACKSLASH, OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT] = Buffer.from('"\\[]{}');

/**
 * Reads a batch of the analytics SDK: JSON with lists of `events` and `user_actions`, also below
 * `data`. `messages` counts their items. Throws FrameError if it is not JSON.
 */
export function walkAnalytics(bytes: Uint8Array): Frames {
  const frames: Frames = { messages: 0, firstAt: Infinity, lastAt: -Infinity, ...noSigns() };
  if (bytes.length > READ_BYTES_MAX) return frames;
  for (const item of itemsOf(parseAnalytics(bytes).value)) {
    frames.messages++;
    const { timestamp, user_id: user } = item;
    const at = typeof timestamp === "number" ? timestamp : Number.NaN;
    if (at < frames.firstAt) frames.firstAt = at;
    if (at > frames.lastAt) frames.lastAt = at;
    if (typeof user === "string") (frames.labels ??= new Labels()).add("user", at || 0, user);
  }
  return frames;
}

/** Returns the JSON of a batch as text, and its value. Throws FrameError if it is none. */
export function parseAnalytics(bytes: Uint8Array): { text: string; value: unknown } {
  const text = UTF8.decode(bytes);
  const value = isUtf8(bytes) && isShallow(bytes) ? parseJson(text) : undefined;
  if (value === undefined) throw new FrameError("json");
  return { text, value };
}

/** Returns whether every reader of JSON can read it: many give up at some depth. */
function isShallow(json: Uint8Array): boolean {
  let depth = 0;
  let isInText = false;
  for (let at = 0; at < json.length; at++) {
    const byte = json[at];
    if (byte === BACKSLASH) at++;
    else if (byte === QUOTE) isInText = !isInText;
    else if (isInText) continue;
    else if (byte === OPEN_LIST || byte === OPEN_OBJECT) {
      if (++depth > DEPTH_MAX) return false;
    } else if (byte === CLOSE_LIST || byte === CLOSE_OBJECT) depth--;
  }
  return true;
}

function* itemsOf(batch: unknown): Generator<Record<string, unknown>> {
  if (!isRecord(batch)) return;
  const data = isRecord(batch["data"]) ? batch["data"] : batch;
  for (const list of [data["events"], data["user_actions"]])
    if (Array.isArray(list)) yield* list.filter(isRecord);
}
