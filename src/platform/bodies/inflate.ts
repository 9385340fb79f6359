import { once } from "node:events";
import { type Transform } from "node:stream";
import { setImmediate } from "node:timers/promises";
import * as zlib from "node:zlib";

import { tooLarge } from "./body.ts";
import { type Coding } from "./codings.ts";
import { AppError } from "../errors.ts";
import { release } from "../gc.ts";
import { joined } from "../streams.ts";
import { ZstdFrames } from "./zstd-frames.ts";

// Sizes below which inflating takes less time than handing the bytes to another thread.
const INLINE_BYTES_MAX = 32 * 1024;
const INLINE_INFLATED_BYTES_MAX = 2 ** 20;
const SLICE_BYTES = 64 * 1024;
const TURN_BYTES = 2 ** 20;
// Length of the zlib header, which distinguishes deflate as HTTP defines it from raw deflate, which
// some clients send.
const ZLIB_HEADER_BYTES = 2;

/** Bytes in the order in which they arrive. */
export type Chunks = AsyncIterableIterator<Uint8Array>;

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

/**
 * Removes one content coding. Only zero padding, which some clients add, may follow the compressed
 * data. Throws 413 if more than `bytesMax` would be inflated, 400 if the data is truncated or
 * corrupt.
 */
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

/** Removes one content coding like `inflateWhole`, but streams. Releases the chunks it has read. */
export async function* inflateChunks(
  coding: Coding,
  chunks: Chunks,
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

/**
 * Peeks at the first bytes (fewer only at the end of the stream); `all` yields all chunks including
 * these.
 */
export async function beginning(
  chunks: Chunks,
  bytes: number,
): Promise<{ head: Uint8Array; all: Chunks }> {
  let head: Uint8Array = new Uint8Array();
  while (head.length < bytes) {
    const { done, value } = await chunks.next();
    if (done === true) break;
    head = head.length === 0 ? value : Buffer.concat([head, value]);
  }
  return { head, all: preceded(head, chunks) };
}

/** Yields one more chunk before the others. A generator would run for every chunk. */
function preceded(first: Uint8Array, chunks: Chunks): Chunks {
  let begun = false;
  const all: Chunks = {
    next: () => {
      if (begun) return chunks.next();
      begun = true;
      return Promise.resolve({ done: false, value: first });
    },
    return: async () => (await chunks.return?.()) ?? { done: true, value: undefined },
    [Symbol.asyncIterator]: () => all,
  };
  return all;
}

function formatOf(coding: Coding, [first = 0, second = 0]: Uint8Array): Format {
  if (coding !== "deflate") return coding;
  return (first & 0x0f) === 8 && (first * 256 + second) % 31 === 0 ? "zlib" : "raw";
}

type Inflated = { buffer: Uint8Array; engine: { bytesWritten: number } };

/**
 * Inflates small bodies on this thread; returns undefined for those that another thread should
 * inflate.
 */
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

/** Yields copies, which the consumer may release. */
async function* slicesIn(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += SLICE_BYTES)
    yield new Uint8Array(bytes.subarray(at, at + SLICE_BYTES));
}

/** Reads the result of a zlib function called with `info`, which its types do not know. */
function readInflated(result: unknown): Inflated {
  if (isInflated(result)) return result;
  throw new TypeError("zlib returned no info");
}

function isInflated(result: unknown): result is Inflated {
  return typeof result === "object" && result !== null && "engine" in result;
}

/** Feeds the chunks to a zlib engine, and yields its output. */
async function* through(engine: Engine, chunks: Chunks): AsyncGenerator<Uint8Array> {
  const feeding = feed(engine, chunks);
  // Awaited below after all output: until then a failure must not be an unhandled rejection.
  feeding.catch(() => undefined);
  try {
    for await (const chunk of engine) if (chunk instanceof Uint8Array) yield chunk;
    const { fed, zeros } = await feeding;
    if (fed - engine.bytesWritten > zeros) throw new RangeError("data follows the end");
  } finally {
    engine.destroy();
  }
}

/**
 * Feeds the engine; resolves to the total number of bytes and the number of trailing zeros. Stops
 * feeding once the engine has reached the end of its data or is destroyed.
 */
async function feed(engine: Engine, chunks: Chunks) {
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
      if (!isOver() && !engine.write(chunk, () => release(chunk)))
        await Promise.race([once(engine, "drain").catch(() => undefined), over]);
      // Yield to the event loop: results that come back at once would otherwise be handled in the
      // same turn.
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

/** Yields only the bytes that belong to zstd frames. */
async function* frameChunks(chunks: Chunks): AsyncGenerator<Uint8Array> {
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
  if (zerosAtEnd(bytes) < bytes.length) throw new RangeError("data follows the end");
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
