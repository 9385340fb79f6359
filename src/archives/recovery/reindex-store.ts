import { type BatchNotes } from "../../log/checked-segment.ts";
import { GONE, Reindex, type Reindexed } from "../../log/recovery/reindex.ts";
import { takeOutArchived } from "../../log/recovery/restore.ts";
import { segmentIdOf } from "../../log/segment.ts";
import { retryOutages } from "../../platform/database/retry-outages.ts";
import { type ArchivedNotes } from "./archive-intake.ts";
import {
  ArchiveReindex,
  type ArchiveReindexDeps,
  type ArchivesReindexed,
} from "./archive-reindex.ts";

export type StoreReindexDeps = Omit<ArchiveReindexDeps, "notes" | "missing"> & {
  notes: () => BatchNotes & ArchivedNotes;
};
export type StoreReindexed = { segments: Reindexed; archives: ArchivesReindexed };
type OnProgress = (objects: number, records: number) => void;

/**
 * Rebuilds what the database knows of the store: first from segments, and then from archives. Rows
 * of segments that are missing, because they were archived and dropped after a backup of the database
 * was made, are taken out.
 */
export async function reindexStore(
  { notes, ...deps }: StoreReindexDeps,
  onProgress: OnProgress = () => undefined,
): Promise<StoreReindexed> {
  const segments = await new Reindex({ ...deps, facts: notes() }).run(onProgress);
  const missing = new Set(segments.missing === 0 ? [] : segments.problems.flatMap(missingId));
  const reindex = new ArchiveReindex({ ...deps, notes, missing });
  const archives = await reindex.run((objects, records) =>
    onProgress(segments.objects + objects, segments.records + records),
  );
  const ids = [...reindex.archivedSegments];
  if (ids.length === 0) return { segments, archives };
  const removed = await retryOutages(async () => await takeOutArchived(deps.sql, ids));
  const left = segments.problems.filter((problem) =>
    missingId(problem).every((id) => !removed.has(id)),
  );
  const count = segments.missing - removed.size;
  return { segments: { ...segments, missing: count, problems: left }, archives };
}

function missingId({ key, reason }: Reindexed["problems"][number]): string[] {
  const id = reason === GONE ? segmentIdOf(key) : undefined;
  return id === undefined ? [] : [id];
}
