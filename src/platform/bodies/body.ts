import { AppError } from "../errors.ts";
import { release } from "../gc.ts";
import { originalOf } from "../rewritten.ts";
import { joined } from "../streams.ts";

const STALL_MS = 30_000;
const PACE_CHECK_MS = 1000;
// A body slower than this over its whole length is given up: connections are finite.
const BYTES_PER_MS_MIN = 4;
// Bun reads a body in one piece at half the cost of its stream.
const WHOLE_BYTES_MAX = 64 * 1024;

/** How long a body of that many bytes may take in ms; `idleTimeout` alone would never end a trickle. */
export function bodyDeadlineMs(bytes: number): number {
  return STALL_MS + bytes / BYTES_PER_MS_MIN;
}

/** The declared length of the body; undefined when it comes in chunks of unknown number. */
function contentLength(request: Request): number | undefined {
  const header = request.headers.get("content-length");
  return header === null ? undefined : Number(header);
}

/**
 * The whole body as sent; `hold` is told of bytes before they are held, and may throw. A large body counts as it arrives: a client that
 * only announces one must not take the room of others. Throws 413 over `bytesMax`, 408 when the client stalls, 400 when it is cut short.
 */
export async function readBody(
  request: Request,
  bytesMax: number,
  hold: (bytes: number) => void = () => undefined,
): Promise<Uint8Array> {
  const length = contentLength(request);
  if (length !== undefined && length > bytesMax) throw tooLarge(bytesMax);
  if (length === undefined || length > WHOLE_BYTES_MAX)
    return await collect(request, bytesMax, hold);
  hold(length);
  return await withDeadline(originalOf(request).bytes(), bodyDeadlineMs(length));
}

export function tooLarge(bytesMax: number, what = "body"): AppError {
  return new AppError("too_large", `the ${what} is over the limit of ${bytesMax} bytes`);
}

async function collect(
  request: Request,
  bytesMax: number,
  hold: (bytes: number) => void,
): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of bodyChunks(originalOf(request).body)) {
    bytes += chunk.length;
    if (bytes > bytesMax) throw tooLarge(bytesMax);
    hold(chunk.length);
    chunks.push(chunk);
  }
  const whole = await joined(chunks, bytes);
  for (const chunk of chunks) release(chunk);
  return whole;
}

async function withDeadline<T>(reading: Promise<T>, ms: number): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(stalled()), ms);
  try {
    return await Promise.race([reading, late]);
  } catch (cause) {
    if (cause instanceof AppError) throw cause;
    throw new AppError("invalid", "the body was cut short", { cause });
  } finally {
    clearTimeout(timer);
  }
}

/** The connection is closed with it: the rest of the body would be read as the next request. */
function stalled(): AppError {
  return new AppError("timeout", "the body took too long", { headers: { connection: "close" } });
}

/** The body as it arrives. Throws 408 when the client's average falls below the least rate; the time that the consumer takes does not count. */
export async function* bodyChunks(
  body: ReadableStream<Uint8Array> | null,
): AsyncGenerator<Uint8Array> {
  const reader = body?.getReader();
  if (reader === undefined) return;
  const pace = new Pace(() => void reader.cancel().catch(() => undefined));
  try {
    for (;;) {
      pace.begin();
      const { done, value } = await reader.read();
      pace.end(value?.length ?? 0);
      if (pace.late) throw stalled();
      if (done) return;
      yield value;
    }
  } catch (cause) {
    if (cause instanceof AppError) throw cause;
    throw new AppError("invalid", "the body was cut short", { cause });
  } finally {
    pace[Symbol.dispose]();
    // Not awaited: who refuses a body answers at once.
    reader.cancel().catch(() => undefined);
  }
}

/** Watches one body with one timer: a timer for each chunk costs more than reading it. */
class Pace implements Disposable {
  late = false;
  #bytes = 0;
  #waitedMs = 0;
  #sinceMs = Number.POSITIVE_INFINITY;
  readonly #timer: NodeJS.Timeout;

  constructor(giveUp: () => void) {
    this.#timer = setInterval(() => {
      const waitedMs = this.#waitedMs + Math.max(0, performance.now() - this.#sinceMs);
      if (waitedMs <= bodyDeadlineMs(this.#bytes)) return;
      this.late = true;
      giveUp();
    }, PACE_CHECK_MS);
  }

  begin(): void {
    this.#sinceMs = performance.now();
  }

  end(bytes: number): void {
    this.#waitedMs += performance.now() - this.#sinceMs;
    this.#sinceMs = Number.POSITIVE_INFINITY;
    this.#bytes += bytes;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}
