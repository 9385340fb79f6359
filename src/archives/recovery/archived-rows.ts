import { RECORD_HEADER_BYTES, SegmentError, recordBody, viewOf } from "../../log/record.ts";
import { ObjectDamaged, type ObjectStore } from "../../platform/objects/objects.ts";
import { Lost } from "../../platform/objects/read-faults.ts";
import { type ArchiveName, archiveKey } from "../archive-key.ts";
import { PieceReader, type PieceRange } from "../piece-reader.ts";

// Bytes read at once, unless a single record is longer.
const WINDOW_BYTES = 2 ** 20;

/** Returns how many of a piece's batches cannot be read. */
export async function lostBatches(
  objects: ObjectStore,
  archive: ArchiveName,
  piece: PieceRange & { batches: number },
): Promise<number> {
  const reader = new PieceReader({ objects }, archive, piece);
  let readable = 0;
  for await (const list of reader.lists())
    for (const batch of list instanceof Lost ? [] : list)
      if (!((await reader.body(batch)) instanceof Lost)) readable++;
  return Math.max(0, piece.batches - readable);
}

/** Tells whether all records in a range of an archive can be read. */
export async function areReadable(
  objects: ObjectStore,
  archive: ArchiveName,
  { start, length }: Pick<PieceRange, "start" | "length">,
): Promise<boolean> {
  const key = archiveKey(archive);
  const end = start + length;
  try {
    for (let at = start; at < end;) {
      const bytes = await objects.read(key, at, Math.min(end, at + WINDOW_BYTES));
      let within = 0;
      for (let next = recordEnd(bytes, 0); next <= bytes.length; next = recordEnd(bytes, within)) {
        recordBody(bytes.subarray(within, next));
        within = next;
        if (within === bytes.length) break;
      }
      // A record that is longer than the window, or damaged in its length.
      if (within === 0) {
        within = recordEnd(bytes, 0);
        if (at + within > end) return false;
        recordBody(await objects.read(key, at, at + within));
      }
      at += within;
    }
    return true;
  } catch (error) {
    if (error instanceof SegmentError || error instanceof ObjectDamaged) return false;
    throw error;
  }
}

/** Returns where the record ends whose header begins there. */
function recordEnd(bytes: Uint8Array, at: number): number {
  if (at + RECORD_HEADER_BYTES > bytes.length) return Number.POSITIVE_INFINITY;
  return at + RECORD_HEADER_BYTES + viewOf(bytes).getUint32(at, true);
}
