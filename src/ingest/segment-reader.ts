import { type ObjectStore } from "../platform/objects.ts";
import { RECORD_HEADER_BYTES, recordBody, segmentKey } from "./segment.ts";

const SPAN_BYTES_MAX = 2 ** 20;
// Reading over a gap of this size is cheaper than another request.
const GAP_BYTES_MAX = 64 * 1024;

/** Where a record's body lies. */
export type Place = { segmentId: string; offset: number; length: number };

type Span<P> = { segmentId: string; start: number; end: number; places: P[] };

/** Reads records back, verified, with few requests and little memory: neighbours in one read, one read ahead. */
export class SegmentReader {
  readonly #objects: ObjectStore;

  constructor(objects: ObjectStore) {
    this.#objects = objects;
  }

  /** The bodies in the order of `places`; throws when one is missing or is not what was written. */
  async *read<P extends Place>(
    places: AsyncIterable<P> | Iterable<P>,
  ): AsyncGenerator<{ place: P; body: Uint8Array }> {
    let ahead: { span: Span<P>; bytes: Promise<Uint8Array> } | undefined;
    for await (const span of spans(places)) {
      const next = { span, bytes: this.#fetch(span) };
      // It is awaited a turn later: a failure must not count as unhandled until then.
      next.bytes.catch(() => undefined);
      if (ahead !== undefined) yield* bodies(ahead.span, await ahead.bytes);
      ahead = next;
    }
    if (ahead !== undefined) yield* bodies(ahead.span, await ahead.bytes);
  }

  async #fetch({ segmentId, start, end }: Span<Place>): Promise<Uint8Array> {
    return await this.#objects.read(segmentKey(segmentId), start, end);
  }
}

function* bodies<P extends Place>({ start, places }: Span<P>, bytes: Uint8Array) {
  for (const place of places) {
    const from = place.offset - RECORD_HEADER_BYTES - start;
    yield { place, body: recordBody(bytes.subarray(from, place.offset + place.length - start)) };
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
    span = { segmentId: place.segmentId, start, end, places: [place] };
  }
  if (span !== undefined) yield span;
}
