import { type Sql } from "../../platform/database/database.ts";
import { unnested } from "../../platform/database/unnested.ts";
import { type ObjectStore } from "../../platform/objects/objects.ts";
import { Lost } from "../../platform/objects/read-faults.ts";
import { type ArchiveName } from "../archive-key.ts";
import { type ArchivedBatch, type Origin } from "../piece-index.ts";
import { readIndexes } from "../piece-reader.ts";
import { type CheckedPiece } from "./checked-piece.ts";

type Deps = { sql: Sql; objects: ObjectStore };

/** Piece of another archive that may have some of the same batches. */
type OtherPiece = ArchiveName & {
  sessionId: bigint;
  start: number;
  length: number;
  indexStart: number;
  firstMs: number;
  lastMs: number;
  unreadable: boolean;
};

/** Records of an archive's pieces that other archives with rows have, too. */
export type Others = {
  /** Batches that are in the facts about their session, as its id and the hash. */
  counted: Set<string>;
  /** Sessions whose pieces have nothing that others do not have. */
  held: Set<bigint>;
};

/**
 * Finds what other archives have of the same records. They may have the same ones if a step was done
 * twice. `sources`: archives that this one takes the place of.
 */
export async function findOthers(
  deps: Deps,
  pieces: CheckedPiece[],
  sources: string[],
): Promise<Others> {
  const found: Others = { counted: new Set(), held: new Set() };
  const others = Map.groupBy(await selectOthers(deps.sql, pieces), ({ sessionId }) => sessionId);
  for (const { piece, rows, batches } of pieces) {
    const { sessionId } = piece;
    const [counted, held] = [new Set<string>(), new Set<string>()];
    for (const other of others.get(sessionId) ?? []) {
      const isSource = sources.includes(other.id);
      for await (const place of placesIn(deps, other, isSource ? batches : [])) {
        counted.add(place);
        if (!isSource && !other.unreadable) held.add(place);
      }
    }
    if (counted.size === 0) continue;
    for (const batch of batches)
      if (counted.has(placeOf(batch))) found.counted.add(`${sessionId} ${batch.hash}`);
    if ([...rows, ...batches].every((origin) => held.has(placeOf(origin))))
      found.held.add(sessionId);
  }
  return found;
}

/** Yields the places of what a piece has; if it is lost, of those batches that it must have had. */
async function* placesIn(
  { objects }: Deps,
  other: OtherPiece,
  batches: ArchivedBatch[],
): AsyncGenerator<string> {
  try {
    for await (const index of readIndexes(objects, other, other))
      for (const origin of [...index.rows, ...index.batches]) yield placeOf(origin);
  } catch (error) {
    if (!(error instanceof Lost)) throw error;
    for (const batch of batches)
      if (batch.receivedAt >= other.firstMs && batch.receivedAt <= other.lastMs)
        yield placeOf(batch);
  }
}

/** Returns pieces of the same sessions with batches that were received at the same time. */
async function selectOthers(sql: Sql, pieces: CheckedPiece[]): Promise<OtherPiece[]> {
  const rows = pieces.flatMap(({ piece: { sessionId, archiveId, firstReceived, lastReceived } }) =>
    firstReceived === null
      ? []
      : { session: sessionId, own: archiveId, first_ms: firstReceived, last_ms: lastReceived },
  );
  if (rows.length === 0) return [];
  const types = { session: "bigint", own: "uuid", first_ms: "float8", last_ms: "float8" };
  return await sql<OtherPiece[]>`
    select archives.id, project_id as "projectId", day::text, session_id as "sessionId", start::float8, length::float8,
      index_start::float8 as "indexStart",
      (extract(epoch from first_received) * 1000)::float8 as "firstMs", (extract(epoch from last_received) * 1000)::float8 as "lastMs",
      exists (select from unreadable_segments where segment_id = archives.id) as unreadable
    from ${unnested(sql, rows, types)}
    join session_pieces on session_id = session and archive_id <> own
      and first_received <= to_timestamp(last_ms / 1000) and last_received >= to_timestamp(first_ms / 1000)
    join archives on archives.id = archive_id`;
}

function placeOf({ segmentId, offset }: Origin): string {
  return `${segmentId} ${offset}`;
}
