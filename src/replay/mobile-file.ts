import { batchBody, batchHead } from "../log/segment-reader.ts";
import { FLAG } from "../log/record.ts";
import { discarded } from "../platform/gc.ts";
import { Lost } from "../platform/objects/read-faults.ts";
import { type BatchRow, type BatchRows } from "./batch-rows.ts";
import { type ReadOptions, type Reading, type ReplayFile } from "./replay-file.ts";

/** Says that messages follow, each behind its index. */
const HEAD = Uint8Array.fromHex("ffffffffffffffff");

// Each byte is read, copied behind an index, and sent.
const COPIES = 3;

/** Reads batches of phones. */
export type MobileBatches = {
  /** Returns the index before the first message; undefined for a malformed batch. */
  firstIndex: (head: Uint8Array) => bigint | undefined;
  /**
   * Yields the records of the messages with an index above `after`. Returns the index of the last
   * message, or `after` if that is greater.
   */
  records: (batch: Uint8Array, after: bigint) => Generator<Uint8Array, bigint>;
};

/**
 * Returns the file of a phone's messages in the order of their indexes, each index once. It reads
 * the batches twice: the order is known only from the beginning of each, and they may be too many
 * to be kept.
 */
export function mobileFile(reading: Reading, rows: BatchRows, batches: MobileBatches): ReplayFile {
  const { reader, about } = reading;
  async function* read({ skipMissing = false }: ReadOptions = {}) {
    yield HEAD;
    const ordered = await inIndexOrder(reading, rows, batches, skipMissing);
    let last = -1n;
    for await (const { place, body } of reader.read(ordered, { decode: batchBody, about })) {
      if (!(body instanceof Lost)) last = yield* batches.records(body, last);
      else if (!skipMissing) throw body;
      discarded(place.length + COPIES * place.bytes);
    }
  }
  return { name: "dom.mobs", bytes: undefined, tag: rows.tag, read };
}

async function inIndexOrder(
  { reader, about }: Reading,
  rows: BatchRows,
  { firstIndex }: MobileBatches,
  skipMissing: boolean,
): Promise<Iterable<BatchRow>> {
  const known: { nth: number; index: bigint; isLate: boolean }[] = [];
  let nth = 0;
  for await (const { place, body } of reader.read(rows, { decode: batchHead, about })) {
    if (body instanceof Lost && !skipMissing) throw body;
    const index = body instanceof Lost ? undefined : firstIndex(body);
    // At one index, what a crash had kept back comes last.
    const isLate = (place.flags & FLAG.late) !== 0;
    if (index !== undefined) known.push({ nth, index, isLate });
    nth++;
    discarded(COPIES * place.length);
  }
  known.sort((a, b) => Number(a.index - b.index) || Number(a.isLate) - Number(b.isLate));
  return known.values().map((one) => rows.at(one.nth));
}
