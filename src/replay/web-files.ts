import { type SessionRecords } from "../archives/session-records.ts";
import { discarded } from "../platform/gc.ts";
import { Lost } from "../platform/objects/read-faults.ts";
import { type BatchRows } from "./batch-rows.ts";
import { type ReadOptions, type ReplayFile } from "./replay-file.ts";

/** Says that batches follow as the web tracker sent them. */
const HEAD = Uint8Array.fromHex("fffffffffffffffe");
const NO_HEAD = new Uint8Array(0);

/**
 * Returns the DOM file of a web session, or both of its DOM files: the second one has the batches
 * that the pages began after the first seconds, and continues the first one.
 */
export function domFiles(records: SessionRecords, rows: BatchRows): ReplayFile[] {
  const early = rows.filter((_kind, isEarly) => isEarly);
  if (early.length === 0 || early.length === rows.length)
    return [webFile("dom.mobs", records, HEAD, rows)];
  const later = rows.filter((_kind, isEarly) => !isEarly);
  return [webFile("dom.mobs", records, HEAD, early), webFile("dom.mobe", records, NO_HEAD, later)];
}

export function devtoolsFile(records: SessionRecords, rows: BatchRows): ReplayFile {
  return webFile("devtools.mob", records, HEAD, rows);
}

/** Returns the file of the head and the batches, unchanged. */
function webFile(
  name: string,
  records: SessionRecords,
  head: Uint8Array,
  rows: BatchRows,
): ReplayFile {
  const bytes = head.length + rows.bytes;
  async function* read({ start = 0, end = bytes, skipMissing = false }: ReadOptions = {}) {
    if (rows.lost !== undefined && !skipMissing) throw rows.lost;
    if (start < head.length) yield head.subarray(start, end);
    const wanted = rowsWithin(rows, head.length, { start, end });
    for await (const { batch, body } of records.read(wanted)) {
      if (!(body instanceof Lost))
        yield body.subarray(Math.max(0, start - batch.at), end - batch.at);
      else if (!skipMissing) throw body;
      // The stored bytes, and those that are sent.
      discarded((batch.length ?? 0) + batch.bytes);
    }
  }
  return { name, bytes, tag: rows.tag, read };
}

/** Yields the rows of a file whose batches begin after its head, with their positions. */
function* rowsWithin(
  rows: BatchRows,
  head: number,
  { start, end }: { start: number; end: number },
) {
  let at = head;
  for (const row of rows) {
    if (at >= end) return;
    if (at + row.bytes > start) yield { ...row, at };
    at += row.bytes;
  }
}
