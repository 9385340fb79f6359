import { AppError } from "../errors.ts";
import { release } from "../gc.ts";
import { joined } from "../streams.ts";
import { inTime } from "../time-limit.ts";

const STALL_MS = 30_000;
const PACE_CHECK_MS = 1000;
// Minimum average rate of a body: slower ones are given up, because connections are limited.
const BYTES_PER_MS_MIN = 4;
// Bun reads a body in one piece at half the cost of its stream.
const WHOLE_BYTES_MAX = 64 * 1024;

/**
 * Returns how long a body of that many bytes may take, in ms. The server's `idleTimeout` alone
 * would never end a trickle.
 */
export function bodyDeadlineMs(bytes: number): number {
  return STALL_MS + bytes / BYTES_PER_MS_MIN;
}

/** Returns the declared length of the body, or undefined if it is chunked. */
export function contentLength(request: Request): number | undefined {
  const header = request.headers.get("content-length");
  return header === null ? undefined : Number(header);
}

/**
 * Reads the whole body as sent. Calls `hold` with byte counts, for a large body as it arrives: a
 * client that only announces one must not take the room of others. Throws 413 over `bytesMax`, 408
 * if the client stalls, 400 if the body is cut short, and what `hold` throws.
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
  return await readWhole(request, length);
}

/** Reads a body of that length in one piece. Throws like `readBody`. */
export async function readWhole(request: Request, length: number): Promise<Uint8Array> {
  try {
    return await inTime(bodyDeadlineMs(length), request.bytes(), () => {
      throw stalled();
    });
  } catch (cause) {
    throw cause instanceof AppError ? cause : cutShort(cause);
  }
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
  for await (const chunk of bodyChunks(request.body)) {
    bytes += chunk.length;
    if (bytes > bytesMax) throw tooLarge(bytesMax);
    hold(chunk.length);
    chunks.push(chunk);
  }
  const whole = await joined(chunks, bytes);
  for (const chunk of chunks) release(chunk);
  return whole;
}

function cutShort(cause: unknown): AppError {
  return new AppError("invalid", "the body was cut short", { cause });
}

/** Returns a 408 that closes the connection: the rest would be read as the next request. */
function stalled(): AppError {
  return new AppError("timeout", "the body took too long", { headers: { connection: "close" } });
}

/**
 * Yields the body as it arrives. Throws 408 if the client's average falls below the minimum rate;
 * time that the consumer takes does not count.
 */
export async function* bodyChunks(
  body: ReadableStream<Uint8Array> | null,
): AsyncGenerator<Uint8Array> {
  const reader = body?.getReader();
  if (reader === undefined) return;
  const watchdog = new RateWatchdog(() => void reader.cancel().catch(() => undefined));
  try {
    for (;;) {
      watchdog.begin();
      const { done, value } = await reader.read();
      watchdog.end(value?.length ?? 0);
      if (watchdog.isLate) throw stalled();
      if (done) return;
      yield value;
    }
  } catch (cause) {
    throw cause instanceof AppError ? cause : cutShort(cause);
  } finally {
    watchdog[Symbol.dispose]();
    // Not awaited, so that a refused body is answered at once.
    reader.cancel().catch(() => undefined);
  }
}

/**
 * Watches the average rate of one body with one timer: a timer for each chunk would cost more than
 * reading it.
 */
class RateWatchdog implements Disposable {
  isLate = false;
  #bytes = 0;
  #waitedMs = 0;
  #sinceMs = Number.POSITIVE_INFINITY;
  readonly #timer: NodeJS.Timeout;

  constructor(giveUp: () => void) {
    this.#timer = setInterval(() => {
      const waitedMs = this.#waitedMs + Math.max(0, performance.now() - this.#sinceMs);
      if (waitedMs <= bodyDeadlineMs(this.#bytes)) return;
      this.isLate = true;
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
