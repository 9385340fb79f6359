import { type Field, type Layout, decodeFields, matches } from "./decoding.ts";
import { FrameCursor, FrameError } from "./frames.ts";
import { MESSAGE_TYPES } from "./messages.ts";
import { Cursor, encodeUint } from "./varint.ts";

/** Types of mobile messages that a player of recorded sessions shows. */
const REPLAYED = new Set([93, 96, 100, 101, 102, 103, 104, 105, 106, 109]);
const INDEX_BYTES = 8;
const INDEX_MAX = 2n ** 64n - 1n;
const PIECE_BYTES = 64 * 1024;

/** Returns the index before a mobile batch's first message; undefined if its head is malformed. */
export function firstIndexOf(head: Uint8Array): bigint | undefined {
  try {
    return new FrameCursor(head).firstIndex;
  } catch (error) {
    if (error instanceof FrameError) return undefined;
    throw error;
  }
}

/**
 * Yields records of a mobile batch's messages for a player, some at a time: the index as a little
 * endian uint64, then the message. Leaves out messages with an index up to `after`, and those that
 * a player could not decode, where it would stop for good. Returns the last index, or `after` if
 * that is greater.
 */
export function* replayRecords(batch: Uint8Array, after: bigint): Generator<Uint8Array, bigint> {
  // Views of the messages would be as much garbage as the batch has bytes.
  const source = Buffer.from(batch.buffer, batch.byteOffset, batch.length);
  const body = new Cursor(batch);
  let piece = Buffer.allocUnsafe(Math.min(PIECE_BYTES, 2 * batch.length));
  let used = 0;
  let last = after;
  try {
    const frame = new FrameCursor(batch);
    let index = frame.firstIndex;
    for (let start = frame.bodyEnd; frame.next(); start = frame.bodyEnd) {
      if (++index > INDEX_MAX) break;
      if (index <= after) continue;
      last = index;
      body.offset = frame.bodyStart;
      const isDocumented = isDocumentedBody(frame, body);
      const other = isDocumented ? undefined : reencoded(frame, batch);
      if (!isDocumented && other === undefined) continue;
      const bytes = INDEX_BYTES + (other?.length ?? frame.bodyEnd - start);
      if (used + bytes > piece.length) {
        if (used > 0) yield piece.subarray(0, used);
        piece = Buffer.allocUnsafe(Math.max(PIECE_BYTES, bytes));
        used = 0;
      }
      used = piece.writeBigUInt64LE(index, used);
      used += other?.copy(piece, used) ?? source.copy(piece, used, start, frame.bodyEnd);
    }
  } catch (error) {
    // Another version took the batch for well-formed.
    if (!(error instanceof FrameError)) throw error;
  }
  if (used > 0) yield piece.subarray(0, used);
  return last;
}

function isDocumentedBody({ type, bodyEnd }: FrameCursor, body: Cursor): boolean {
  const documented = REPLAYED.has(type) ? MESSAGE_TYPES.get(type)?.[1] : undefined;
  return documented !== undefined && matches(documented, body, bodyEnd);
}

/** Encodes a message as documented if it has another known layout; returns undefined for others. */
function reencoded(
  { type, timestamp, bodyStart, bodyEnd }: FrameCursor,
  batch: Uint8Array,
): Buffer | undefined {
  const [, documented, ...others] = (REPLAYED.has(type) && MESSAGE_TYPES.get(type)) || [];
  if (documented === undefined || others.length === 0) return undefined;
  const body = batch.subarray(bodyStart, bodyEnd);
  const fields = others.map((layout) => decodeFields(layout, body)).find((found) => found);
  return fields && encode(type, timestamp, documented, fields);
}

function encode(
  type: number,
  timestamp: number,
  layout: Layout,
  fields: Record<string, Field>,
): Buffer {
  const body = Buffer.concat(
    Object.entries(layout).flatMap(([name, encoding]) => {
      const field = fields[name] ?? "";
      if (encoding !== "text")
        return [encodeUint(Math.min(Math.max(Number(field), 0), Number.MAX_SAFE_INTEGER))];
      const text = Buffer.from(String(field));
      return [encodeUint(text.length), text];
    }),
  );
  return Buffer.concat([...[type, timestamp, body.length].map(encodeUint), body]);
}
