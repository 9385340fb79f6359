import { type SessionRecords } from "../archives/session-records.ts";
import { batchHead } from "../log/segment-reader.ts";
import { FLAG } from "../log/record.ts";
import { discarded } from "../platform/gc.ts";
import { Lost } from "../platform/objects/read-faults.ts";
import { type BatchRow, type BatchRows } from "./batch-rows.ts";
import { type ReadOptions, type ReplayFile } from "./replay-file.ts";

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
export function mobileFile(
  records: SessionRecords,
  rows: BatchRows,
  batches: MobileBatches,
): ReplayFile {
  async function* read({ skipMissing = false }: ReadOptions = {}) {
    if (rows.lost !== undefined && !skipMissing) throw rows.lost;
    yield HEAD;
    const ordered = await inIndexOrder(records, rows, batches, skipMissing);
    let last = -1n;
    for await (const { batch, body } of records.read(ordered)) {
      if (!(body instanceof Lost)) last = yield* batches.records(body, last);
      else if (!skipMissing) throw body;
      discarded((batch.length ?? 0) + COPIES * batch.bytes);
    }
  }
  return { name: "dom.mobs", bytes: undefined, tag: rows.tag, read };
}

async function inIndexOrder(
  records: SessionRecords,
  rows: BatchRows,
  { firstIndex }: MobileBatches,
  skipMissing: boolean,
): Promise<Iterable<BatchRow>> {
  const known: { nth: number; index: bigint; isLate: boolean }[] = [];
  let nth = 0;
  for await (const { batch, body } of records.read(rows, batchHead)) {
    if (body instanceof Lost && !skipMissing) throw body;
    const index = body instanceof Lost ? undefined : firstIndex(body);
    // At one index, what a crash had kept back comes last.
    const isLate = (batch.flags & FLAG.late) !== 0;
    if (index !== undefined) known.push({ nth, index, isLate });
    nth++;
    discarded(COPIES * (batch.length ?? 0));
  }
  known.sort((a, b) => Number(a.index - b.index) || Number(a.isLate) - Number(b.isLate));
  return known.values().map((one) => rows.at(one.nth));
}
