import { gunzipSync } from "node:zlib";

import { WebFrameCursor } from "../../src/ingest/web-frames.ts";
import type { BatchKind } from "../../src/log/batch-kind.ts";
import { concat } from "../../test/support/batches.ts";
import { type Recorded, trackerRequests } from "../../test/support/tracker-requests.ts";
import { encodeWebMessage } from "../../test/support/web-batches.ts";
import { type Batch, MARK_BYTES, MARK_HOLDER } from "./batch.ts";
import type { WebType } from "./plan.ts";

/** Builds batches of messages that the web tracker sent from a browser. */

const CONSOLE_LOG = 22;
/** Message that ends with the mark. */
const MARK = encodeWebMessage(CONSOLE_LOG, "info", `request ${MARK_HOLDER}`);

type Messages = { header: Uint8Array; messages: Uint8Array[] };

export type WebBatch = Batch & {
  /** Length of the first one of two batches, which have a mark each. */
  split?: number;
};

/** Builds the body of a request: of `size` bytes, or as much less as no recorded message fits. */
export function buildWebBatch(type: WebType, size: number): WebBatch {
  if (type !== "visual") {
    const bytes = fill(recorded("v2", type), size);
    return { bytes, markOffsets: [bytes.length - MARK_BYTES] };
  }
  const { header, messages } = recorded("v2-big", "assets");
  const assets = concat([header, MARK, ...messages]);
  const player = fill(recorded("v2-big", "player"), size - assets.length);
  const split = player.length;
  // The two marks are close to each other, because nothing between them is compressed.
  const markOffsets = [split, split + header.length + MARK.length].map((end) => end - MARK_BYTES);
  return { bytes: concat([player, assets]), markOffsets, split };
}

/** Builds a batch that ends with a mark, and repeats messages for as long as one of them fits. */
function fill({ header, messages }: Messages, size: number): Uint8Array {
  const parts = [header];
  let room = size - header.length - MARK.length;
  let before: number;
  do {
    before = room;
    for (const message of messages) {
      if (message.length > room) continue;
      parts.push(message);
      room -= message.length;
    }
  } while (room < before);
  return concat([...parts, MARK]);
}

/** Returns all messages of a kind in a recorded session, and the header of their first batch. */
function recorded(session: Recorded, kind: BatchKind): Messages {
  const all: Messages = { header: new Uint8Array(0), messages: [] };
  for (const { path, headers, body } of trackerRequests(session)) {
    const content = headers["content-encoding"] === "gzip" ? gunzipSync(body) : body;
    const split = Number(/&split=(\d+)/.exec(path)?.[1] ?? content.length);
    for (const bytes of [content.subarray(0, split), content.subarray(split)]) {
      if (bytes.length === 0) continue;
      const frame = new WebFrameCursor(bytes);
      if (frame.kind !== kind) continue;
      if (all.messages.length === 0) all.header = bytes.subarray(0, frame.bodyEnd);
      for (let start = frame.bodyEnd; frame.next(); start = frame.bodyEnd)
        all.messages.push(bytes.subarray(start, frame.bodyEnd));
    }
  }
  return all;
}
