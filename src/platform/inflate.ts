import { once } from "node:events";
import { type Transform } from "node:stream";
import { setImmediate } from "node:timers/promises";
import * as zlib from "node:zlib";

import { tooLarge } from "./body.ts";
import { type Coding } from "./codings.ts";
import { AppError } from "./errors.ts";
import { joined } from "./streams.ts";
import { ZstdFrames } from "./zstd-frames.ts";

// Below these sizes inflating takes less than the hand-over to another thread.
const INLINE_BYTES_MAX = 32 * 1024;
const INLINE_INFLATED_BYTES_MAX = 2 ** 20;
const SLICE_BYTES = 64 * 1024;
const TURN_BYTES = 2 ** 20;
// What tells deflate with the header of zlib, as HTTP means it, from the bare one that some clients send.
const ZLIB_HEADER_BYTES = 2;

type Format = "gzip" | "zlib" | "raw" | "br" | "zstd";
type Options = { info: true; maxOutputLength: number };
type Engine = Transform & { bytesWritten: number };

const INLINE: Record<Format, (bytes: Uint8Array, options: Options) => unknown> = {
  gzip: zlib.gunzipSync,
  zlib: zlib.inflateSync,
  raw: zlib.inflateRawSync,
  br: zlib.brotliDecompressSync,
  zstd: zlib.zstdDecompressSync,
};
const CHUNKS = { chunkSize: SLICE_BYTES };
const STREAMS: Record<Format, () => Engine> = {
  gzip: () => zlib.createGunzip(CHUNKS),
  zlib: () => zlib.createInflate(CHUNKS),
  raw: () => zlib.createInflateRaw(CHUNKS),
  br: () => zlib.createBrotliDecompress(CHUNKS),
  zstd: () => zlib.createZstdDecompress(CHUNKS),
};

/** Takes one coding off. Behind it there may be zeros, which some clients pad with, and nothing else. Throws 413 when more than `bytesMax` would come out, 400 when it is not whole. */
export async function inflateWhole(
  coding: Coding,
  bytes: Uint8Array,
  bytesMax: number,
): Promise<Uint8Array> {
  try {
    const format = formatOf(coding, bytes);
    const frames = format === "zstd" ? bytes.subarray(0, frameBytes(bytes)) : bytes;
    const known = inflatedInline(format, frames, bytesMax);
    if (known === undefined) return await inflateElsewhere(coding, bytes, bytesMax);
    checkPadding(bytes.subarray(known.engine.bytesWritten));
    return known.buffer;
  } catch (cause) {
    throw refusal(coding, cause, bytesMax);
  }
}

/** The same of bytes that arrive in chunks. */
export async function* inflateChunks(
  coding: Coding,
  chunks: AsyncGenerator<Uint8Array>,
  bytesMax: number,
): AsyncGenerator<Uint8Array> {
  let bytes = 0;
  try {
    const { head, all } = await beginning(chunks, ZLIB_HEADER_BYTES);
    const format = formatOf(coding, head);
    const source = format === "zstd" ? frameChunks(all) : all;
    for await (const chunk of through(STREAMS[format](), source)) {
      bytes += chunk.length;
      if (bytes > bytesMax) throw tooLarge(bytesMax, "inflated body");
      yield chunk;
    }
  } catch (cause) {
    throw refusal(coding, cause, bytesMax);
  }
}

/** The first bytes, fewer only when there are no more, and all chunks, those included. */
export async function beginning(
  chunks: AsyncGenerator<Uint8Array>,
  bytes: number,
): Promise<{ head: Uint8Array; all: AsyncGenerator<Uint8Array> }> {
  let head: Uint8Array = new Uint8Array();
  while (head.length < bytes) {
    const { done, value } = await chunks.next();
    if (done === true) break;
    head = head.length === 0 ? value : Buffer.concat([head, value]);
  }
  const all = async function* () {
    yield head;
    yield* chunks;
  };
  return { head, all: all() };
}

function formatOf(coding: Coding, [first = 0, second = 0]: Uint8Array): Format {
  if (coding !== "deflate") return coding;
  return (first & 0x0f) === 8 && (first * 256 + second) % 31 === 0 ? "zlib" : "raw";
}

type Inflated = { buffer: Uint8Array; engine: { bytesWritten: number } };

/** Undefined for what is to be inflated by another thread. */
function inflatedInline(format: Format, bytes: Uint8Array, bytesMax: number): Inflated | undefined {
  if (bytes.length > INLINE_BYTES_MAX) return undefined;
  const maxOutputLength = Math.min(bytesMax, INLINE_INFLATED_BYTES_MAX);
  try {
    return readInflated(INLINE[format](bytes, { info: true, maxOutputLength }));
  } catch (cause) {
    if (isTooLarge(cause) && maxOutputLength < bytesMax) return undefined;
    throw cause;
  }
}

async function inflateElsewhere(
  coding: Coding,
  bytes: Uint8Array,
  bytesMax: number,
): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let inflatedBytes = 0;
  for await (const chunk of inflateChunks(coding, slicesIn(bytes), bytesMax)) {
    chunks.push(chunk);
    inflatedBytes += chunk.length;
  }
  return await joined(chunks, inflatedBytes);
}

async function* slicesIn(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += SLICE_BYTES) yield bytes.subarray(at, at + SLICE_BYTES);
}

/** The result of an engine that was asked for `info`, which its types do not know. */
function readInflated(result: unknown): Inflated {
  if (isInflated(result)) return result;
  throw new TypeError("the engine gave no info");
}

function isInflated(result: unknown): result is Inflated {
  return typeof result === "object" && result !== null && "engine" in result;
}

/** What comes out of an engine that is fed with the chunks. */
async function* through(
  engine: Engine,
  chunks: AsyncGenerator<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  const feeding = feed(engine, chunks);
  // It is awaited when everything has come out: a failure must not count as unhandled until then.
  feeding.catch(() => undefined);
  try {
    for await (const chunk of engine) if (chunk instanceof Uint8Array) yield chunk;
    const { fed, zeros } = await feeding;
    if (fed - engine.bytesWritten > zeros) throw new RangeError("more behind the end");
  } finally {
    engine.destroy();
  }
}

/** Resolves to the number of bytes in all, and of zeros at their end. An engine that has found its end, or is gone, is given no more. */
async function feed(engine: Engine, chunks: AsyncGenerator<Uint8Array>) {
  const { promise: over, resolve } = Promise.withResolvers<void>();
  for (const event of ["end", "error", "close"]) engine.once(event, () => resolve());
  const isOver = () => engine.readableEnded || engine.destroyed;
  let fed = 0;
  let zeros = 0;
  try {
    for await (const chunk of chunks) {
      if (engine.destroyed && !engine.readableEnded) break;
      fed += chunk.length;
      const ending = zerosAtEnd(chunk);
      zeros = ending === chunk.length ? zeros + ending : ending;
      // A copy: the bytes are a view of what the network delivered, and the engine reads them later.
      if (!isOver() && !engine.write(new Uint8Array(chunk)))
        await Promise.race([once(engine, "drain").catch(() => undefined), over]);
      // What comes back from the other thread at once is taken in the same turn of the event loop.
      if (Math.trunc(fed / TURN_BYTES) > Math.trunc((fed - chunk.length) / TURN_BYTES))
        await setImmediate();
    }
    if (!isOver()) engine.end();
    return { fed, zeros };
  } catch (error) {
    engine.destroy(error instanceof Error ? error : new Error(String(error)));
    throw error;
  }
}

/** The bytes of a body's frames alone. */
async function* frameChunks(chunks: AsyncGenerator<Uint8Array>): AsyncGenerator<Uint8Array> {
  const frames = new ZstdFrames();
  for await (const chunk of chunks) {
    const taken = frames.take(chunk);
    checkPadding(chunk.subarray(taken));
    if (taken > 0) yield chunk.subarray(0, taken);
  }
  if (!frames.isComplete) throw new RangeError("the frames are cut short");
}

function frameBytes(bytes: Uint8Array): number {
  const frames = new ZstdFrames();
  const taken = frames.take(bytes);
  if (!frames.isComplete) throw new RangeError("the frames are cut short");
  return taken;
}

function checkPadding(bytes: Uint8Array): void {
  if (zerosAtEnd(bytes) < bytes.length) throw new RangeError("more behind the end");
}

function zerosAtEnd(bytes: Uint8Array): number {
  let start = bytes.length;
  while (start > 0 && bytes[start - 1] === 0) start--;
  return bytes.length - start;
}

function isTooLarge(cause: unknown): boolean {
  return cause instanceof Error && "code" in cause && cause.code === "ERR_BUFFER_TOO_LARGE";
}

function refusal(coding: Coding, cause: unknown, bytesMax: number): AppError {
  if (cause instanceof AppError) return cause;
  if (isTooLarge(cause)) return tooLarge(bytesMax, "inflated body");
  return new AppError("invalid", `the body is not valid ${coding}`, { cause });
}
