import { isUtf8 } from "node:buffer";

import { isRecord, parseJson } from "../platform/json.ts";
import { FrameError, type Frames } from "./frames.ts";
import { Labels } from "./labels.ts";
import { noSigns } from "./signs.ts";

// Parsing cannot be interrupted. Larger batches are stored as they are, and only counted as batches.
const READ_BYTES_MAX = 2 ** 20 + 64 * 1024;
const UTF8 = new TextDecoder();

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
  const value = parseJson(text);
  if (!isUtf8(bytes) || value === undefined) throw new FrameError("json");
  return { text, value };
}

function* itemsOf(batch: unknown): Generator<Record<string, unknown>> {
  if (!isRecord(batch)) return;
  const data = isRecord(batch["data"]) ? batch["data"] : batch;
  for (const list of [data["events"], data["user_actions"]])
    if (Array.isArray(list)) yield* list.filter(isRecord);
}
