import {
  type ArchivedContent,
  restoreContents,
  restoreUses,
} from "../../log/recovery/archived-images.ts";
import { insertUnknown, restoreRows } from "../../log/recovery/restore.ts";
import { type SegmentEntry } from "../../log/record.ts";
import { type ProjectRecord, emptySegment } from "../../log/stored-segment.ts";
import { moveImages } from "../../log/unassigned-images.ts";
import { markReadable, markUnreadable } from "../../log/unreadable.ts";
import { type Queryable, type Sql } from "../../platform/database/database.ts";
import { retryOutages } from "../../platform/database/retry-outages.ts";
import { unnested } from "../../platform/database/unnested.ts";
import { Lost } from "../../platform/objects/read-faults.ts";
import { type ObjectStore } from "../../platform/objects/objects.ts";
import { type ArchiveName, archiveKey } from "../archive-key.ts";
import { type CheckedArchive, type CheckedPart } from "./checked-archive.ts";
import { type CheckedPiece } from "./checked-piece.ts";
import { replaceObjects } from "../object-garbage.ts";
import { type ArchivedBatch, type Origin } from "../piece-index.ts";
import { readIndexes } from "../piece-reader.ts";
import { type Piece, insertArchives } from "../piece.ts";

// Limits of one statement.
const GROUP_BATCHES = 10_000;
const GROUP_PIECES = 2000;
const PAGE_ROWS = 2000;

/** Takes notes of what archived batches say about their sessions, as ReadFacts. */
export interface ArchivedNotes {
  note: (
    segmentId: string,
    batch: Pick<SegmentEntry, "sessionId" | "flags" | "facts">,
    body: Uint8Array,
  ) => Promise<void>;
  readonly isFull: boolean;
  addUp: (isCounted: (sessionId: bigint, hash: bigint) => boolean) => Promise<void>;
  writeSums: (sql: Queryable) => Promise<void>;
}

type Deps = { sql: Sql; objects: ObjectStore; notes: ArchivedNotes };
/** Piece of another archive that may have some of the same batches. */
type OtherPiece = ArchiveName & {
  sessionId: bigint;
  start: number;
  length: number;
  indexStart: number;
  firstMs: number;
  lastMs: number;
};
/** Places and hashes of batches, as columns of a statement. */
type Removal = { session: bigint; digest: bigint; segment: string; place: number };

/**
 * Takes an archive without a row in, part by part. Rows of sessions, projects and uses of images are
 * restored at once, because they are true whatever comes of the archive; everything else is in one
 * transaction.
 */
export class ArchiveIntake {
  readonly #deps: Deps;
  readonly #checked: CheckedArchive;
  readonly #pieces: Piece[] = [];
  readonly #removals: Removal[][] = [];
  readonly #contents: ArchivedContent[] = [];
  #group: CheckedPiece[] = [];
  #projects: ProjectRecord[] = [];
  /** Number of batches, images and rows that were read. */
  records = 0;
  /** Ids of projects whose id or key another one had, too. */
  readonly contested = new Set<number>();

  constructor(deps: Deps, checked: CheckedArchive) {
    this.#deps = deps;
    this.#checked = checked;
  }

  /** Reads all parts, and returns what is wrong with the archive. */
  async read(): Promise<string | undefined> {
    const { notes } = this.#deps;
    const note = async (sessionId: bigint, batch: ArchivedBatch, body: Uint8Array) =>
      await notes.note(batch.segmentId, { sessionId, flags: batch.flags, facts: batch }, body);
    let batches = 0;
    for await (const part of this.#checked.parts(note)) {
      batches += this.#add(part);
      if (batches < GROUP_BATCHES && this.#group.length < GROUP_PIECES && !notes.isFull) continue;
      await this.#restoreGroup();
      batches = 0;
    }
    await this.#restoreGroup();
    return await this.#checked.problem();
  }

  /**
   * Inserts the rows of the archive, and deletes those of batches that it has, and of the archives
   * that it was made of; `graceS` is the time after which their objects may be deleted. Does nothing
   * if the archive has a row by now.
   */
  async commit({ graceS, isWhole }: { graceS: number; isWhole: boolean }): Promise<void> {
    await retryOutages(
      async () =>
        await this.#deps.sql.begin(async (sql) => {
          const { id } = this.#checked.archive;
          const [row] = await sql`select 1 from archives where id = ${id}`;
          if (row !== undefined) return;
          await sql`delete from object_garbage where key = ${archiveKey(this.#checked.archive)}`;
          await this.#insert(sql);
          for (const removal of this.#removals) await removeBatches(sql, removal);
          await this.#replaceSources(sql, graceS);
          await this.#deps.notes.writeSums(sql);
          await (isWhole ? markReadable(sql, id) : markUnreadable(sql, [id]));
        }),
    );
  }

  /** Returns the number of batches in the part. */
  #add(part: CheckedPart): number {
    if ("content" in part) this.#contents.push(part.content);
    else if ("project" in part) this.#projects.push(part.project);
    else this.#group.push(part.piece);
    const batches = "piece" in part ? part.piece.batches.length : 1;
    this.records += batches + ("piece" in part ? part.piece.rows.length : 0);
    return batches;
  }

  async #restoreGroup(): Promise<void> {
    const { sql, notes } = this.#deps;
    const [group, projects] = [this.#group, this.#projects];
    [this.#group, this.#projects] = [[], []];
    if (group.length + projects.length === 0) return;
    await retryOutages(
      async () => await sql.begin(async (t) => await this.#restore(t, group, projects)),
    );
    const known = await retryOutages(async () => await this.#knownElsewhere(group));
    const isCounted = (sessionId: bigint, hash: bigint) =>
      known.batches.has(`${sessionId} ${hash}`);
    await retryOutages(async () => await notes.addUp(isCounted));
    for (const { piece, batches, lost } of group) {
      if (!known.pieces.has(piece.sessionId)) this.#pieces.push(piece);
      this.#remove(piece, batches, lost);
    }
  }

  async #restore(sql: Queryable, group: CheckedPiece[], projects: ProjectRecord[]): Promise<void> {
    const { id } = this.#checked.archive;
    const uses = group.flatMap((one) => one.uses);
    const rows = {
      ...emptySegment({ id, entries: [] }, { key: "", bytes: 0 }),
      projects,
      sessions: group.flatMap(({ sessions }) => sessions),
      images: group.flatMap(({ unhashed }) => unhashed),
    };
    const { contested } = await restoreRows(sql, [rows], { newerGiveWay: true });
    for (const project of contested) this.contested.add(project);
    await insertUnknown(
      sql,
      group.map(({ piece }) => piece.sessionId),
    );
    await restoreUses(sql, uses);
    const unassigned = uses.filter((use) => use.project_id === 0);
    await moveImages(
      sql,
      unassigned.map((use) => use.session_id),
    );
  }

  #remove({ sessionId }: Piece, batches: ArchivedBatch[], lost: Set<ArchivedBatch>): void {
    let last = this.#removals.at(-1);
    for (const batch of batches) {
      // The copy in a segment may be whole.
      if (lost.has(batch)) continue;
      if (last === undefined || last.length >= GROUP_BATCHES) this.#removals.push((last = []));
      const { segmentId, offset, hash } = batch;
      const digest = BigInt.asIntN(64, hash);
      last.push({ session: sessionId, digest, segment: segmentId, place: offset });
    }
  }

  async #insert(sql: Queryable): Promise<void> {
    const { archive, sources } = this.#checked;
    await insertArchives(sql, [archive], []);
    for (let at = 0; at < this.#pieces.length; at += PAGE_ROWS)
      await insertArchives(sql, [], this.#pieces.slice(at, at + PAGE_ROWS));
    for (let at = 0; at < this.#contents.length; at += PAGE_ROWS)
      await restoreContents(sql, archive.id, this.#contents.slice(at, at + PAGE_ROWS), sources);
  }

  /**
   * Deletes the rows of archives that this one was made of. Their objects, as far as they are still
   * there, are deleted like those that a merge has replaced.
   */
  async #replaceSources(sql: Queryable, graceS: number): Promise<void> {
    const { archive, sources } = this.#checked;
    const replaced = await sql<ArchiveName[]>`
      with replaced as (
        select id from archives where id = any(${sources}) and not exists (select from image_contents where archive_id = archives.id)
        order by id for update
      )
      delete from archives using replaced where archives.id = replaced.id
      returning archives.id, project_id as "projectId", day::text`;
    if (replaced.length === 0) return;
    await sql`delete from session_pieces where archive_id = any(${replaced.map(({ id }) => id)})`;
    await replaceObjects(sql, replaced.map(archiveKey), [archive.id], graceS);
  }

  /**
   * Finds batches that pieces of other archives have, too, so that the facts about them are counted,
   * and sessions whose pieces have nothing that others do not have.
   */
  async #knownElsewhere(
    group: CheckedPiece[],
  ): Promise<{ batches: Set<string>; pieces: Set<bigint> }> {
    const known = { batches: new Set<string>(), pieces: new Set<bigint>() };
    const others = Map.groupBy(
      await otherPieces(this.#deps.sql, group),
      ({ sessionId }) => sessionId,
    );
    for (const { piece, rows, batches } of group) {
      const { sessionId } = piece;
      const found = others.get(sessionId);
      if (found === undefined) continue;
      const [replaced, staying] = [new Set<string>(), new Set<string>()];
      for (const other of found)
        if (this.#checked.sources.includes(other.id))
          await this.#addOrigins(other, batches, replaced);
        else await this.#addOrigins(other, batches, staying);
      for (const batch of batches) {
        const place = placeOf(batch);
        if (replaced.has(place) || staying.has(place))
          known.batches.add(`${sessionId} ${batch.hash}`);
      }
      if ([...rows, ...batches].every((origin) => staying.has(placeOf(origin))))
        known.pieces.add(sessionId);
    }
    return known;
  }

  /** Adds the places of what another piece has, or what it must have had. */
  async #addOrigins(
    other: OtherPiece,
    batches: ArchivedBatch[],
    places: Set<string>,
  ): Promise<void> {
    try {
      for await (const index of readIndexes(this.#deps.objects, other, other))
        for (const origin of [...index.rows, ...index.batches]) places.add(placeOf(origin));
    } catch (error) {
      if (!(error instanceof Lost)) throw error;
      // Only this archive has them now, if it was made of that one.
      if (!this.#checked.sources.includes(other.id)) return;
      for (const batch of batches)
        if (batch.receivedAt >= other.firstMs && batch.receivedAt <= other.lastMs)
          places.add(placeOf(batch));
    }
  }
}

/** Returns pieces of the same sessions with batches that were received at the same time. */
async function otherPieces(sql: Sql, group: CheckedPiece[]): Promise<OtherPiece[]> {
  const rows = group.flatMap(({ piece: { sessionId, archiveId, firstReceived, lastReceived } }) =>
    firstReceived === null
      ? []
      : { session: sessionId, own: archiveId, first_ms: firstReceived, last_ms: lastReceived },
  );
  if (rows.length === 0) return [];
  const types = { session: "bigint", own: "uuid", first_ms: "float8", last_ms: "float8" };
  return await sql<OtherPiece[]>`
    select archives.id, project_id as "projectId", day::text, session_id as "sessionId", start::float8, length::float8,
      index_start::float8 as "indexStart",
      (extract(epoch from first_received) * 1000)::float8 as "firstMs", (extract(epoch from last_received) * 1000)::float8 as "lastMs"
    from ${unnested(sql, rows, types)}
    join session_pieces on session_id = session and archive_id <> own
      and first_received <= to_timestamp(last_ms / 1000) and last_received >= to_timestamp(first_ms / 1000)
    join archives on archives.id = archive_id`;
}

/**
 * Deletes the rows of batches that an archive has, also of those that were sent again later. The
 * order of locks is that of those who write them, so that two processes cannot deadlock.
 */
async function removeBatches(sql: Queryable, batches: Removal[]): Promise<void> {
  const types = { session: "bigint", digest: "bigint", segment: "uuid", place: "integer" };
  await sql`
    with held as materialized (
      select session_id, hash from ${unnested(sql, batches, types)}
      join batches on (session_id, hash) = (session, digest) and (segment_id, "offset") >= (segment, place)
      order by session_id, hash for update of batches
    )
    delete from batches using held where (batches.session_id, batches.hash) = (held.session_id, held.hash)`;
}

function placeOf({ segmentId, offset }: Origin): string {
  return `${segmentId} ${offset}`;
}
