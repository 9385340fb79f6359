import pRetry from "p-retry";

import { ObjectDamaged, ObjectMissing, type ObjectStore, ReadBroken } from "./objects.ts";
import { WrappedObjects } from "./wrapped-objects.ts";

const RETRIES_MAX = 40;
const WAIT_MS_MIN = 20;
const WAIT_MS_MAX = 300;

export type RetryingOptions = {
  /** Time after which no new attempt is made. */
  giveUpMs: number;
  /** Longest silence between two chunks of a streamed body. */
  stallMs: number;
};

type Body = Blob | ReadableStream<Uint8Array<ArrayBuffer>>;

/**
 * Object store that retries reads and lists for some seconds while they fail, time out or break
 * off, and resumes where they stopped. Does not retry missing or damaged objects.
 */
export class RetryingObjects extends WrappedObjects {
  readonly #options: RetryingOptions;

  constructor(inner: ObjectStore, options: Partial<RetryingOptions> = {}) {
    super(inner);
    this.#options = { giveUpMs: 10_000, stallMs: 5_000, ...options };
  }

  override async read(
    key: string,
    start: number,
    end: number,
    signal?: AbortSignal,
  ): Promise<Uint8Array> {
    const range = new Range(start);
    const rest = await this.#retried(
      async () => await range.next((at) => this.inner.read(key, at, end, signal)),
      signal,
    );
    return range.isBegun ? Buffer.concat([...range.parts, rest]) : rest;
  }

  override async body(key: string, start: number, end: number): Promise<Body> {
    const range = new Range(start);
    const rest = await this.#retried(
      async () => await range.next((at) => this.inner.body(key, at, end)),
    );
    if (!(rest instanceof Blob)) return this.#stream(key, rest, start, end);
    return range.isBegun ? new Blob([...range.parts, rest]) : rest;
  }

  override async *list(
    prefix: string,
    after?: string,
  ): AsyncGenerator<{ key: string; bytes: number }> {
    let last = after;
    let page: AsyncIterator<{ key: string; bytes: number }> | undefined;
    const next = async () => {
      page ??= this.inner.list(prefix, last)[Symbol.asyncIterator]();
      try {
        return await page.next();
      } catch (error) {
        page = undefined;
        throw error;
      }
    };
    try {
      for (;;) {
        const { done, value } = await this.#retried(next);
        if (done === true) return;
        last = value.key;
        yield value;
      }
    } finally {
      await page?.return?.();
    }
  }

  /** Streams a long body, and requests the rest if the answer breaks off or stalls. */
  #stream(
    key: string,
    first: ReadableStream<Uint8Array<ArrayBuffer>>,
    start: number,
    end: number,
  ): ReadableStream<Uint8Array<ArrayBuffer>> {
    let at = start;
    let reader = readerOf(first);
    let isBroken = false;
    let isWaiting = false;
    // One timer for all chunks. Canceling a reader looks like an answer that was cut off, so the
    // rest is requested.
    const silence = setTimeout(() => {
      if (isWaiting) reader.cancel().catch(() => undefined);
    }, this.#options.stallMs);
    silence.unref();
    const next = async () => {
      if (isBroken) reader = readerOf(await this.inner.body(key, at, end));
      isBroken = isWaiting = true;
      silence.refresh();
      const { done, value } = await reader.read().finally(() => (isWaiting = false));
      if (done) throw new Error(`${key}: the body ended at ${at} of ${end}`);
      if (at + value.length > end) throw new Error(`${key}: the body goes on after ${end}`);
      isBroken = false;
      return value;
    };
    return new ReadableStream<Uint8Array<ArrayBuffer>>(
      {
        pull: async (controller) => {
          const chunk = await this.#retried(next);
          at += chunk.length;
          controller.enqueue(chunk);
          if (at < end) return;
          clearTimeout(silence);
          controller.close();
          await reader.cancel();
        },
        cancel: async (reason) => {
          clearTimeout(silence);
          await reader.cancel(reason);
        },
      },
      { highWaterMark: 0 },
    );
  }

  async #retried<T>(attempt: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    try {
      return await attempt();
    } catch (error) {
      if (signal?.aborted === true || !mayPass(error)) throw error;
    }
    return await pRetry(attempt, {
      retries: RETRIES_MAX,
      minTimeout: WAIT_MS_MIN,
      maxTimeout: WAIT_MS_MAX,
      randomize: true,
      maxRetryTime: this.#options.giveUpMs,
      shouldRetry: ({ error }) => mayPass(error),
      ...(signal && { signal }),
    });
  }
}

/** A range of which a part may have arrived. */
class Range {
  readonly parts: Uint8Array<ArrayBuffer>[] = [];
  #at: number;

  constructor(start: number) {
    this.#at = start;
  }

  get isBegun(): boolean {
    return this.parts.length > 0;
  }

  /** Reads the missing rest. */
  async next<T>(read: (at: number) => Promise<T>): Promise<T> {
    try {
      return await read(this.#at);
    } catch (error) {
      if (error instanceof ReadBroken) {
        this.parts.push(Uint8Array.from(error.bytes));
        this.#at += error.bytes.length;
      }
      if (error instanceof ObjectDamaged && this.isBegun)
        throw new ObjectDamaged(error.message, Buffer.concat([...this.parts, error.bytes]));
      throw error;
    }
  }
}

function readerOf(body: Body) {
  return (body instanceof Blob ? body.stream() : body).getReader();
}

/** Returns false for permanent errors, which retries cannot fix. */
function mayPass(error: unknown): boolean {
  return !(
    error instanceof ObjectMissing ||
    error instanceof ObjectDamaged ||
    error instanceof RangeError
  );
}
