import { RECORD_HEADER_BYTES } from "../../log/record.ts";
import { isRowKind } from "../../log/stored-segment.ts";
import { type ArchivedBatch, type Index, type Origin, unpackIndex } from "../piece-index.ts";
import { byOrigin } from "../piece-reader.ts";
import { type Piece } from "../piece.ts";
import {
  type Input,
  type InputWindows,
  type ReadRecord,
  contradiction,
  lostOf,
  parsed,
} from "./windows.ts";

/** Before the origins of all records. */
export const FIRST: Origin = { segmentId: "", offset: 0 };

/** Row of a piece in an input. */
export type InputPiece = Pick<
  Piece,
  "sessionId" | "start" | "length" | "indexStart" | "batches"
> & {
  input: Input;
  firstSegment: string | null;
  firstOffset: number | null;
};

/** Yields the rows in a piece. */
export async function* rowsIn(
  windows: InputWindows,
  piece: InputPiece,
): AsyncGenerator<Origin & { record: ReadRecord }> {
  const { input, start, indexStart } = piece;
  let at = start;
  for await (const { rows, frames, at: first } of indexesIn(windows, piece)) {
    for (const origin of rows) {
      const { head, body, next } = await windows.record(input, at, indexStart);
      if (!isRowKind(head.kind) || head.sessionId !== piece.sessionId)
        throw contradiction(input, "a row is missing");
      // A copy, because the window moves on.
      yield { ...origin, record: { head, body: new Uint8Array(body), next } };
      at = next;
    }
    if (at !== start + first) throw contradiction(input, "a piece has other rows than its index");
    if (frames.length > 0) return;
  }
}

/** Yields the batches of a piece, and checks that they are all that it should have. */
export async function* batchesIn(
  windows: InputWindows,
  piece: InputPiece,
): AsyncGenerator<ArchivedBatch & { body: Uint8Array }> {
  const { input, start, indexStart } = piece;
  let at = start;
  let count = 0;
  let last: Origin = FIRST;
  for await (const { at: first, frames, batches, rows } of indexesIn(windows, piece)) {
    // Rows are before all frames.
    if (count > 0 && (rows.length > 0 || at !== start + first))
      throw contradiction(input, "an index contradicts the one before");
    at = start + first;
    let nth = 0;
    for (const frame of frames) {
      const inFrame = batches.slice(nth, (nth += frame.batches));
      for (const [position, batch] of inFrame.entries()) {
        const bodies = await windows.bodies(input, at, frame, inFrame);
        const body = new Uint8Array(bodies[position] ?? []);
        if (Bun.hash.xxHash3(body) !== BigInt.asUintN(64, batch.hash))
          throw contradiction(input, "a batch differs from its hash");
        if (byOrigin(last, batch) >= 0) throw contradiction(input, "batches are not in order");
        if (count++ === 0 && !isFirst(piece, batch))
          throw contradiction(input, "the first batch is another than the piece's row says");
        last = batch;
        yield { ...batch, body };
      }
      at += RECORD_HEADER_BYTES + frame.length;
    }
  }
  if (count !== piece.batches || (count > 0 && at !== indexStart))
    throw contradiction(input, "a piece has other batches than its row says");
}

function isFirst({ firstSegment, firstOffset }: InputPiece, batch: Origin): boolean {
  return batch.segmentId === firstSegment && batch.offset === firstOffset;
}

async function* indexesIn(
  windows: InputWindows,
  { input, sessionId, indexStart, start, length }: InputPiece,
): AsyncGenerator<Index> {
  const end = start + length;
  for (let at = indexStart; at < end;) {
    const { head, body, next } = await windows.record(input, at, end, "indexes");
    if (head.kind !== "index" || head.sessionId !== sessionId)
      throw contradiction(input, "an index is missing");
    let index: Index;
    try {
      index = parsed(() => unpackIndex(body));
    } catch (error) {
      throw lostOf(input, error);
    }
    yield index;
    at = next;
  }
}
