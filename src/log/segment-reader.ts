import { constants, gunzipSync } from "node:zlib";

import { ObjectDamaged, type ObjectStore } from "../platform/objects/objects.ts";
import { Lost, type ReadFaults } from "../platform/objects/read-faults.ts";
import { FLAG, RECORD_HEADER_BYTES, recordBody } from "./record.ts";
import { segmentKey } from "./segment.ts";

const SPAN_BYTES_MAX = 2 ** 20;
// Reading over a gap of this size is cheaper than another request.
const GAP_BYTES_MAX = 64 * 1024;
// Compressed bytes that are enough for the first numbers of a batch.
const HEAD_BYTES = 1024;
// The smallest buffer that zlib takes.
const CHUNK_BYTES_MIN = 64;

/** Location of a record's body; an archive's has the id of that, and its key. */
export type Place = { segmentId: string; key?: string; offset: number; length: number };

type Span<P> = { segmentId: string; key: string; start: number; end: number; places: P[] };
/** Bytes of a span, cut short if its object is damaged. */
type Fetched = Uint8Array | Lost;

export type ReadOptions<P> = {
  /** Converts a stored body; throws if that is impossible. */
  decode?: (body: Uint8Array, place: P) => Uint8Array;
  /** Fields for log lines. */
  about?: object;
  /** Set if the caller reports what is lost: another copy may have it. */
  isSilent?: boolean;
  signal?: AbortSignal | undefined;
};

/**
 * Reads and verifies records with few requests and little memory: reads neighbours together, and
 * one such group ahead.
 */
export class SegmentReader {
  readonly #objects: ObjectStore;
  readonly #faults: ReadFaults | undefined;

  /**
   * With `faults`, unreadable objects are reported there, and an unavailable store becomes a 503.
   */
  constructor(objects: ObjectStore, faults?: ReadFaults) {
    this.#objects = objects;
    this.#faults = faults;
  }

  /**
   * Yields each body in the order of `places`, or Lost if it cannot be read. Throws while the store
   * is unavailable.
   */
  async *read<P extends Place>(
    places: AsyncIterable<P> | Iterable<P>,
    options: ReadOptions<P> = {},
  ): AsyncGenerator<{ place: P; body: Uint8Array | Lost }> {
    let ahead: { span: Span<P>; fetched: Promise<Fetched> } | undefined;
    for await (const span of spans(places)) {
      const next = { span, fetched: this.#fetch(span, options.signal) };
      // Awaited a turn later: until then a failure must not be an unhandled rejection.
      next.fetched.catch(() => undefined);
      if (ahead !== undefined) yield* this.#bodies(ahead.span, await ahead.fetched, options);
      ahead = next;
    }
    if (ahead !== undefined) yield* this.#bodies(ahead.span, await ahead.fetched, options);
  }

  /** Reports lost bytes to operators. */
  report(lost: Lost, about: object = {}): void {
    this.#faults?.lost(lost, about);
  }

  async *#bodies<P extends Place>(span: Span<P>, fetched: Fetched, options: ReadOptions<P>) {
    let again: Fetched | undefined;
    for (const place of span.places) {
      let body = bodyIn(fetched, span, place, options);
      // Read again: it may have been damaged in transit, and counts as lost only if both reads
      // fail.
      if (body instanceof Lost && body.reason === "damaged") {
        again ??= await this.#fetch(span, options.signal);
        body = bodyIn(again, span, place, options);
      }
      if (body instanceof Lost && options.isSilent !== true) this.report(body, options.about);
      yield { place, body };
    }
  }

  async #fetch({ key, start, end }: Span<Place>, signal?: AbortSignal): Promise<Fetched> {
    try {
      return await this.#objects.read(key, start, end, signal);
    } catch (error) {
      if (error instanceof ObjectDamaged) return error.bytes;
      const lost = Lost.from(error, key);
      if (lost !== undefined) return lost;
      throw this.#faults?.away(error, key) ?? error;
    }
  }
}

function bodyIn<P extends Place>(
  fetched: Fetched,
  { key, start }: Span<P>,
  place: P,
  { decode }: ReadOptions<P>,
): Uint8Array | Lost {
  if (fetched instanceof Lost) return fetched;
  const from = place.offset - RECORD_HEADER_BYTES - start;
  try {
    const body = recordBody(fetched.subarray(from, place.offset + place.length - start));
    return decode?.(body, place) ?? body;
  } catch (error) {
    return new Lost("damaged", key, error);
  }
}

async function* spans<P extends Place>(
  places: AsyncIterable<P> | Iterable<P>,
): AsyncGenerator<Span<P>> {
  let span: Span<P> | undefined;
  for await (const place of places) {
    const start = place.offset - RECORD_HEADER_BYTES;
    const end = place.offset + place.length;
    const joins =
      span !== undefined &&
      span.segmentId === place.segmentId &&
      start >= span.end &&
      start - span.end <= GAP_BYTES_MAX &&
      end - span.start <= SPAN_BYTES_MAX;
    if (span !== undefined && joins) {
      span.end = end;
      span.places.push(place);
      continue;
    }
    if (span !== undefined) yield span;
    const { segmentId, key = segmentKey(segmentId) } = place;
    span = { segmentId, key, start, end, places: [place] };
  }
  if (span !== undefined) yield span;
}

/** The flags of a batch, and its size when inflated. */
type Stored = { flags: number; bytes: number };

/**
 * Inflates a stored body to what the client encoded. Throws if it does not inflate, or not to the
 * size that it had.
 */
export function batchBody(body: Uint8Array, { flags, bytes }: Stored): Uint8Array {
  // Room for all of it, and a byte more: zlib copies what it has to make room for.
  const options = { maxOutputLength: bytes, chunkSize: Math.max(CHUNK_BYTES_MIN, bytes + 1) };
  const content = isGzip(flags) ? gunzipSync(body, options) : body;
  if (content.length !== bytes) throw new Error(`${content.length} bytes instead of ${bytes}`);
  return content;
}

/** Inflates only the beginning. Throws if that does not inflate. */
export function batchHead(body: Uint8Array, { flags }: Stored): Uint8Array {
  if (!isGzip(flags)) return body;
  return gunzipSync(body.subarray(0, HEAD_BYTES), { finishFlush: constants.Z_SYNC_FLUSH });
}

function isGzip(flags: number): boolean {
  return (flags & FLAG.gzip) !== 0;
}
