import { setImmediate } from "node:timers/promises";

import { MOBILE_SIGNS, type Signs, addSign, noSigns } from "./signs.ts";
import { Cursor } from "./varint.ts";

// Frames per turn of the event loop: a few milliseconds even before the JIT compiles the loop.
const TURN_FRAMES = 20_000;

/**
 * Facts about a batch that the walk over its frames found. Times are epoch milliseconds by the
 * client's clock, so they may be far from the server's.
 */
export type Frames = Signs & { messages: number; firstAt: number; lastAt: number };

/** Reasons why a batch is malformed; few and stable, so that they can label a metric. */
export type FrameFault =
  | "leading_type"
  | "version"
  | "second_meta"
  | "server_type"
  | "varint"
  | "truncated"
  | "overrun"
  | "json";

export class FrameError extends Error {
  override readonly name = "FrameError";
  readonly reason: FrameFault;

  constructor(reason: FrameFault) {
    super(`The batch is malformed: ${reason}.`);
    this.reason = reason;
  }
}

/**
 * BatchMeta opens every mobile batch: type, timestamp, a length, and the index of the message before
 * the batch's first one. The length is ignored, because SDKs do not agree on what it counts: the
 * bytes of the index, or those of the batch that are replayed.
 */
const BATCH_META = 107;

/**
 * Steps through the frames of a batch in the OpenReplay mobile wire format: type, timestamp (ms)
 * and length as LEB128, then the body. It relies on the length alone, because real clients write
 * bodies that differ from the documented fields.
 */
export class FrameCursor {
  type = 0;
  timestamp = 0;
  bodyStart = 0;
  bodyEnd = 0;
  readonly #cursor: Cursor;
  readonly #indexStart: number;

  /** Starts on the batch's BatchMeta frame. Throws FrameError. */
  constructor(bytes: Uint8Array) {
    const cursor = (this.#cursor = new Cursor(bytes));
    if (bytes.length === 0) throw new FrameError("truncated");
    if (bytes[0] !== BATCH_META) throw new FrameError("leading_type");
    this.type = safeUint(cursor);
    this.timestamp = safeUint(cursor);
    skipUint(cursor);
    this.#indexStart = cursor.offset;
    skipUint(cursor);
    this.bodyEnd = cursor.offset;
  }

  /** Index in BatchMeta. */
  get firstIndex(): bigint {
    return new Cursor(this.#cursor.bytes, this.#indexStart).bigUint() ?? 0n;
  }

  get body(): Uint8Array {
    return this.#cursor.bytes.subarray(this.bodyStart, this.bodyEnd);
  }

  /** Steps to the next message; returns false at the end of the batch. Throws FrameError. */
  next(): boolean {
    const cursor = this.#cursor;
    if (this.bodyEnd === cursor.bytes.length) return false;
    this.type = safeUint(cursor);
    this.timestamp = safeUint(cursor);
    const length = safeUint(cursor);
    if (length > cursor.bytes.length - cursor.offset) throw new FrameError("overrun");
    this.bodyStart = cursor.offset;
    cursor.offset += length | 0; // Tells the JIT that this is an integer, which halves the walk's time.
    this.bodyEnd = cursor.offset;
    if (this.type === BATCH_META) throw new FrameError("second_meta");
    if (isServerMade(this.type)) throw new FrameError("server_type");
    return true;
  }
}

/**
 * Checks the framing of a mobile batch, but nothing inside its messages except signs. `messages`
 * counts the frames after BatchMeta; the times are the earliest and latest of all frames, including
 * BatchMeta. Throws FrameError.
 */
export function walkFrames(bytes: Uint8Array): Frames {
  const walk = new FrameWalk(bytes);
  while (walk.step(bytes.length));
  return walk.frames;
}

/**
 * Like `walkFrames`, but yields to the event loop: a batch may hold hundreds of thousands of
 * frames.
 */
export async function walkManyFrames(bytes: Uint8Array): Promise<Frames> {
  return await inTurns(new FrameWalk(bytes));
}

/** Runs a walk that yields to the event loop. */
export async function inTurns(walk: Walk): Promise<Frames> {
  while (walk.step(TURN_FRAMES)) await setImmediate();
  return walk.frames;
}

/** `step` advances by up to that many frames; returns false at the end of the batch. */
type Walk = { step(count: number): boolean; readonly frames: Frames };

class FrameWalk {
  readonly #frame: FrameCursor;
  readonly frames: Frames;

  constructor(bytes: Uint8Array) {
    this.#frame = new FrameCursor(bytes);
    const { timestamp } = this.#frame;
    this.frames = { messages: 0, firstAt: timestamp, lastAt: timestamp, ...noSigns() };
  }

  step(count: number): boolean {
    const frame = this.#frame;
    let { messages, firstAt, lastAt } = this.frames;
    let isMore = true;
    for (let left = count; left > 0 && (isMore = frame.next()); left--) {
      messages++;
      if (frame.timestamp < firstAt) firstAt = frame.timestamp;
      if (frame.timestamp > lastAt) lastAt = frame.timestamp;
      const sign = MOBILE_SIGNS[frame.type];
      if (sign !== undefined) addSign(this.frames, sign, frame.body, frame.timestamp);
    }
    Object.assign(this.frames, { messages, firstAt, lastAt });
    return isMore;
  }
}

/**
 * Returns whether only servers write the type. SessionStart, SessionEnd, PerformanceAggregated and
 * Issue have no length, so the walk could not step over them.
 */
function isServerMade(type: number): boolean {
  return type === 90 || type === 91 || type === 110 || type === 111;
}

/** Reads a number up to 2^53 - 1. Throws FrameError. */
export function safeUint(cursor: Cursor): number {
  const value = cursor.uint();
  if (value <= Number.MAX_SAFE_INTEGER) return value;
  throw malformedNumber(value);
}

function skipUint(cursor: Cursor): void {
  const value = cursor.uint();
  if (!Number.isFinite(value)) throw malformedNumber(value);
}

function malformedNumber(value: number): FrameError {
  return new FrameError(Number.isNaN(value) ? "truncated" : "varint");
}
