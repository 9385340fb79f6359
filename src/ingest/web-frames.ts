import { type BatchKind } from "../log/batch-kind.ts";
import { FrameError, type Frames, inTurns, safeUint } from "./frames.ts";
import { type Signs, WEB_SIGNS, addSign, noSigns } from "./signs.ts";
import { Cursor } from "./varint.ts";

/** BatchMetadata opens every web batch. It alone has no size. */
const BATCH_METADATA = 81;
const TIMESTAMP = 0;
/** Types that only servers write. */
const SERVER_TYPES = [1, 3, 31, 32, 33, 56, 66, 126, 127];
const SIZE_BYTES = 3;

/** Kinds of batches by the version in the header. */
const KINDS = new Map<number, BatchKind>([
  [1, "web"],
  [2, "player"],
  [3, "assets"],
  [4, "devtools"],
  [5, "analytics"],
]);

/** Length of a time in epoch milliseconds until the year 2109. */
const TIME_BYTES = 6;

const HOP = 0;
const NOTE_TIME = 1;
const SECOND_META = 2;
const SERVER_TYPE = 3;
const SIGN = 4;
const HIGHEST_RULE = 127;
/** Says what the walk does with a type. Higher types are hopped over, whatever they mean. */
const RULES = new Uint8Array(HIGHEST_RULE + 1);
RULES[TIMESTAMP] = NOTE_TIME;
RULES[BATCH_METADATA] = SECOND_META;
for (const type of SERVER_TYPES) RULES[type] = SERVER_TYPE;
for (const [type, sign] of WEB_SIGNS.entries()) if (sign !== undefined) RULES[type] = SIGN;

/**
 * Steps through the frames of a batch in the OpenReplay web wire format: type as LEB128, size in
 * three bytes, low first, then the body. Of the bodies it reads only times and signs.
 */
export class WebFrameCursor {
  readonly kind: BatchKind;
  readonly pageNo: number;
  readonly firstIndex: number;
  /** Time in the header, in epoch ms by the client's clock. */
  readonly headerAt: number;
  type = BATCH_METADATA;
  /** Time of the latest Timestamp message, or else of the header. */
  timestamp: number;
  /** Latest time so far, of the header or of a Timestamp message. */
  lastAt: number;
  bodyStart = 1;
  bodyEnd: number;
  readonly #cursor: Cursor;

  /**
   * Starts on the batch's header, which is not one of its messages. Throws FrameError, also if the
   * batch is not of the expected kind.
   */
  constructor(bytes: Uint8Array, expected?: BatchKind) {
    const cursor = (this.#cursor = new Cursor(bytes));
    if (bytes.length === 0) throw new FrameError("truncated");
    if (bytes[cursor.offset++] !== BATCH_METADATA) throw new FrameError("leading_type");
    const kind = KINDS.get(safeUint(cursor));
    if (kind === undefined || kind !== (expected ?? kind)) throw new FrameError("version");
    this.kind = kind;
    this.pageNo = safeUint(cursor);
    this.firstIndex = safeUint(cursor);
    const zigzag = safeUint(cursor);
    this.headerAt = zigzag % 2 === 0 ? zigzag / 2 : -(zigzag + 1) / 2;
    this.timestamp = this.lastAt = this.headerAt;
    const length = safeUint(cursor);
    if (length > bytes.length - cursor.offset) throw new FrameError("overrun");
    this.bodyEnd = cursor.offset + length;
  }

  /** Steps to the next message; returns false at the end of the batch. Throws FrameError. */
  next(): boolean {
    return this.advance(1) === 1;
  }

  get body(): Uint8Array {
    return this.#cursor.bytes.subarray(this.bodyStart, this.bodyEnd);
  }

  /**
   * Steps over up to that many messages, and returns over how many. Adds the signs of all of them.
   * Throws FrameError. One loop over local variables takes a third of the time of a call per
   * message.
   */
  advance(count: number, signs?: Signs): number {
    const { bytes } = this.#cursor;
    const { length } = bytes;
    let { type, bodyStart, bodyEnd } = this;
    let left = count;
    for (; left > 0 && bodyEnd < length; left--) {
      type = bytes[bodyEnd] ?? 0;
      let at = bodyEnd + 1;
      if (type >= 0x80) {
        type = this.#uint(bodyEnd, length);
        at = this.#cursor.offset;
      }
      bodyStart = at + SIZE_BYTES;
      if (bodyStart > length) throw new FrameError("truncated");
      bodyEnd =
        bodyStart + ((bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8) | ((bytes[at + 2] ?? 0) << 16));
      if (bodyEnd > length) throw new FrameError("overrun");
      if (type > HIGHEST_RULE) continue;
      const rule = RULES[type] ?? HOP;
      if (rule === HOP) continue;
      if (rule === SIGN) {
        const sign = WEB_SIGNS[type];
        if (signs !== undefined && sign !== undefined)
          addSign(signs, sign, bytes.subarray(bodyStart, bodyEnd), this.timestamp);
        continue;
      }
      if (rule !== NOTE_TIME)
        throw new FrameError(rule === SECOND_META ? "second_meta" : "server_type");
      let time = bodyEnd - bodyStart === TIME_BYTES ? sixBytes(bytes, bodyStart) : -1;
      if (time < 0) time = this.#uint(bodyStart, bodyEnd);
      this.timestamp = time;
      if (time > this.lastAt) this.lastAt = time;
    }
    this.type = type;
    this.bodyStart = bodyStart;
    this.bodyEnd = bodyEnd;
    return count - left;
  }

  #uint(start: number, end: number): number {
    this.#cursor.offset = start;
    const value = safeUint(this.#cursor);
    if (this.#cursor.offset > end) throw new FrameError("overrun");
    return value;
  }
}

/** Reads a number of six bytes in half the time of a cursor; returns -1 if it has another length. */
function sixBytes(bytes: Uint8Array, at: number): number {
  const a = bytes[at] ?? 0;
  const b = bytes[at + 1] ?? 0;
  const c = bytes[at + 2] ?? 0;
  const d = bytes[at + 3] ?? 0;
  const e = bytes[at + 4] ?? 0;
  const f = bytes[at + 5] ?? 0;
  if ((a & b & c & d & e) < 0x80 || f >= 0x80) return -1;
  const low = (a & 0x7f) | ((b & 0x7f) << 7) | ((c & 0x7f) << 14) | ((d & 0x7f) << 21);
  return low + ((e & 0x7f) | (f << 7)) * 2 ** 28;
}

/**
 * Checks the framing of a web batch, but nothing inside its messages except times and signs. `messages`
 * counts the frames after the header; `firstAt` is the header's time, `lastAt` the latest of all.
 * Throws FrameError.
 */
export function walkWebFrames(bytes: Uint8Array, expected?: BatchKind): Frames {
  const walk = new WebFrameWalk(bytes, expected);
  while (walk.step(bytes.length));
  return walk.frames;
}

/** Like `walkWebFrames`, but yields to the event loop. */
export async function walkManyWebFrames(bytes: Uint8Array, expected?: BatchKind): Promise<Frames> {
  return await inTurns(new WebFrameWalk(bytes, expected));
}

/** Returns the kind of a web batch by its header; `web` if the header is malformed. */
export function webKindOf(bytes: Uint8Array): BatchKind {
  try {
    return new WebFrameCursor(bytes).kind;
  } catch (error) {
    if (error instanceof FrameError) return "web";
    throw error;
  }
}

class WebFrameWalk {
  readonly #frame: WebFrameCursor;
  readonly frames: Frames;

  constructor(bytes: Uint8Array, expected?: BatchKind) {
    this.#frame = new WebFrameCursor(bytes, expected);
    const { headerAt } = this.#frame;
    this.frames = { messages: 0, firstAt: headerAt, lastAt: headerAt, ...noSigns() };
  }

  step(count: number): boolean {
    const stepped = this.#frame.advance(count, this.frames);
    this.frames.messages += stepped;
    this.frames.lastAt = this.#frame.lastAt;
    return stepped === count;
  }
}
