import { setImmediate, setTimeout } from "node:timers/promises";

// Objects and bytes read ahead at most.
const AHEAD_BYTES = 32 * 2 ** 20;
const AHEAD_OBJECTS = 32;

/** Largest body that is sent whole: Bun drops a stream's `Content-Length` (oven-sh/bun#10507). */
export const INLINE_BYTES_MAX = 2 ** 20;
const SLICE_BYTES = 2 ** 18;
/** Bytes copied in one turn of the event loop. */
const TURN_BYTES = 2 ** 22;
const BREAK_AFTER_MS = 100;
const PIECE_BYTES = 2 ** 16;

/**
 * Streams a body only as fast as the client reads it. A failure half-way breaks the connection, so
 * that no client takes a part for the whole.
 */
export function streamOf(
  chunks: AsyncGenerator<Uint8Array>,
  first?: Promise<IteratorResult<Uint8Array>>,
): ReadableStream<Uint8Array> {
  let begun = first;
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const next = begun ?? chunks.next();
        begun = undefined;
        const { done, value } = await next.catch(afterSending);
        if (done === true) controller.close();
        else controller.enqueue(value);
      },
      async cancel() {
        await chunks.return(undefined);
      },
    },
    { highWaterMark: 0 },
  );
}

/**
 * Delays a stream's failure: Bun drops unsent data when a stream fails, and a TCP reset may
 * overtake data that was sent.
 */
async function afterSending(error: unknown): Promise<never> {
  await setTimeout(BREAK_AFTER_MS);
  throw error;
}

/**
 * Like `streamOf`, but waits for the first chunk, so that an earlier failure can be answered as an
 * error. `breaks` selects the errors that should break the connection even then.
 */
export async function begunStream(
  chunks: AsyncGenerator<Uint8Array>,
  breaks: (error: unknown) => boolean = () => false,
): Promise<ReadableStream<Uint8Array>> {
  const first = chunks.next();
  await first.catch((error: unknown) => {
    if (!breaks(error)) throw error;
  });
  return streamOf(chunks, first);
}

/**
 * Yields the same chunks until the signal is aborted; then throws its reason at once, even while
 * the source is silent.
 */
export async function* abortable(
  chunks: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const source = chunks[Symbol.asyncIterator]();
  let waiting: PromiseWithResolvers<IteratorResult<Uint8Array>> | undefined;
  const abort = () => waiting?.reject(signal.reason);
  signal.addEventListener("abort", abort);
  try {
    for (;;) {
      signal.throwIfAborted();
      waiting = Promise.withResolvers();
      source.next().then(waiting.resolve, waiting.reject);
      const { done, value } = await waiting.promise;
      if (done === true) return;
      yield value;
    }
  } finally {
    signal.removeEventListener("abort", abort);
    // Not awaited: a silent source would delay the end.
    source.return?.().catch(() => undefined);
  }
}

/**
 * Copies the chunks into buffers of one length, which `take` returns, and yields each buffer that
 * is full or `last`. A full buffer may be the last one; the last one is empty only if no bytes
 * came.
 */
export async function* partsOf(
  chunks: AsyncIterable<Uint8Array>,
  take: () => Uint8Array,
): AsyncGenerator<{ buffer: Uint8Array; bytes: number; last: boolean }> {
  let buffer = take();
  let bytes = 0;
  for await (const chunk of chunks)
    for (let at = 0; at < chunk.length;) {
      if (bytes === buffer.length) {
        yield { buffer, bytes, last: false };
        buffer = take();
        bytes = 0;
      }
      const piece = chunk.subarray(at, at + buffer.length - bytes);
      buffer.set(piece, bytes);
      bytes += piece.length;
      at += piece.length;
    }
  yield { buffer, bytes, last: true };
}

/** Joins short chunks into pieces of at least 64 KiB, and lets other requests run between them. */
export async function* gathered(
  chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  let piece: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of chunks) {
    piece.push(chunk);
    bytes += chunk.length;
    if (bytes < PIECE_BYTES) continue;
    yield piece.length === 1 ? chunk : Buffer.concat(piece, bytes);
    piece = [];
    bytes = 0;
    await setImmediate();
  }
  if (bytes > 0) yield Buffer.concat(piece, bytes);
}

/** Returns bytes in memory as a stream of slices. */
export function slicesOf(bytes: Uint8Array): ReadableStream<Uint8Array> {
  let at = 0;
  return new ReadableStream<Uint8Array>({
    pull(controller) {
      controller.enqueue(bytes.subarray(at, at + SLICE_BYTES));
      at += SLICE_BYTES;
      if (at >= bytes.length) controller.close();
    },
  });
}

/**
 * Concatenates the chunks, yielding to the event loop: writing to new memory is slow (page faults).
 */
export async function joined(chunks: Uint8Array[], bytes: number): Promise<Uint8Array> {
  if (bytes <= TURN_BYTES) return Buffer.concat(chunks, bytes);
  const whole = Buffer.allocUnsafeSlow(bytes);
  let at = 0;
  let turn = 0;
  for (const chunk of chunks)
    for (let from = 0; from < chunk.length; from += TURN_BYTES) {
      const piece = chunk.subarray(from, from + TURN_BYTES);
      whole.set(piece, at);
      at += piece.length;
      turn += piece.length;
      if (turn < TURN_BYTES) continue;
      turn = 0;
      await setImmediate();
    }
  return whole;
}

/** Allocates memory and touches all of it, so that the next write to it is fast. */
export async function readyMemory(bytes: number): Promise<Uint8Array> {
  const memory = Buffer.allocUnsafeSlow(bytes);
  for (let at = 0; at < bytes; at += TURN_BYTES) {
    memory.subarray(at, at + TURN_BYTES).fill(0);
    await setImmediate();
  }
  return memory;
}

/** Yields up to that many items at a time. */
export async function* inPages<Item>(
  items: AsyncIterable<Item>,
  size: number,
): AsyncGenerator<Item[]> {
  let page: Item[] = [];
  for await (const item of items) {
    if (page.push(item) < size) continue;
    yield page;
    page = [];
  }
  if (page.length > 0) yield page;
}

/**
 * Reads objects ahead, up to 32 of up to 32 MiB in all, and yields in their order. Leaves out those of
 * which there is nothing to read.
 */
export async function* readAhead<Unread extends { bytes: number }, Read>(
  found: AsyncIterable<Unread>,
  read: (object: Unread) => Promise<Read | undefined>,
): AsyncGenerator<Read> {
  const ahead: { bytes: number; reading: Promise<Read | undefined> }[] = [];
  let bytesAhead = 0;
  const next = async () => {
    const first = ahead.shift();
    bytesAhead -= first?.bytes ?? 0;
    return await first?.reading;
  };
  for await (const object of found) {
    while (ahead.length > 0 && isFarAhead(ahead.length, bytesAhead + object.bytes)) {
      const one = await next();
      if (one !== undefined) yield one;
    }
    const reading = read(object);
    // Awaited later: until then a failure must not be an unhandled rejection.
    reading.catch(() => undefined);
    ahead.push({ bytes: object.bytes, reading });
    bytesAhead += object.bytes;
  }
  while (ahead.length > 0) {
    const one = await next();
    if (one !== undefined) yield one;
  }
}

function isFarAhead(objects: number, bytes: number): boolean {
  return objects >= AHEAD_OBJECTS || bytes > AHEAD_BYTES;
}
