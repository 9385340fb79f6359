import { batchBody } from "../log/segment-reader.ts";
import { discarded } from "../platform/gc.ts";
import { Lost } from "../platform/objects/read-faults.ts";
import { type BatchRows } from "./batch-rows.ts";
import { type ReadOptions, type Reading, type ReplayFile } from "./replay-file.ts";

/** Says that batches follow as the web tracker sent them. */
const HEAD = Uint8Array.fromHex("fffffffffffffffe");
const NO_HEAD = new Uint8Array(0);

/**
 * Returns the DOM file of a web session, or both of its DOM files: the second one has the batches
 * that the pages began after the first seconds, and continues the first one.
 */
export function domFiles(reading: Reading, rows: BatchRows): ReplayFile[] {
  const early = rows.filter((_kind, isEarly) => isEarly);
  if (early.length === 0 || early.length === rows.length)
    return [webFile("dom.mobs", reading, HEAD, rows)];
  const later = rows.filter((_kind, isEarly) => !isEarly);
  return [webFile("dom.mobs", reading, HEAD, early), webFile("dom.mobe", reading, NO_HEAD, later)];
}

export function devtoolsFile(reading: Reading, rows: BatchRows): ReplayFile {
  return webFile("devtools.mob", reading, HEAD, rows);
}

/** Returns the file of the head and the batches, unchanged. */
function webFile(
  name: string,
  { reader, about }: Reading,
  head: Uint8Array,
  rows: BatchRows,
): ReplayFile {
  const bytes = head.length + rows.bytes;
  async function* read({ start = 0, end = bytes, skipMissing = false }: ReadOptions = {}) {
    if (start < head.length) yield head.subarray(start, end);
    const places = rowsWithin(rows, head.length, { start, end });
    for await (const { place, body } of reader.read(places, { decode: batchBody, about })) {
      if (!(body instanceof Lost))
        yield body.subarray(Math.max(0, start - place.at), end - place.at);
      else if (!skipMissing) throw body;
      // The stored bytes, and those that are sent.
      discarded(place.length + place.bytes);
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
