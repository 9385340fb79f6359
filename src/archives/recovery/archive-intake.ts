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
import { arrayLiteral, unnested } from "../../platform/database/unnested.ts";
import { type ObjectStore } from "../../platform/objects/objects.ts";
import { type ArchiveName, archiveKey } from "../archive-key.ts";
import { type CheckedArchive, type CheckedPart } from "./checked-archive.ts";
import { type CheckedPiece } from "./checked-piece.ts";
import { findOthers } from "./other-copies.ts";
import { replaceObjects } from "../object-garbage.ts";
import { type ArchivedBatch } from "../piece-index.ts";
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
  addUp: (
    sessionsWithRows: ReadonlySet<bigint>,
    isCounted: (sessionId: bigint, hash: bigint) => boolean,
  ) => Promise<void>;
  writeSums: (sql: Queryable) => Promise<void>;
}

type Deps = { sql: Sql; objects: ObjectStore; notes: () => ArchivedNotes };
/** Parts that are restored together, and the notes about them. */
type Group = { pieces: CheckedPiece[]; projects: ProjectRecord[]; notes: ArchivedNotes };
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
  readonly #successors: string[];
  readonly #pieces: Piece[] = [];
  readonly #removals: Removal[][] = [];
  readonly #contents: ArchivedContent[] = [];
  readonly #noted: ArchivedNotes[] = [];
  #group: Group;
  /** Number of batches, images and rows that were read. */
  records = 0;
  /** Ids of projects whose id or key another one had, too. */
  readonly contested = new Set<number>();

  /** `successors`: archives with rows that were made of this one, each of them of a part perhaps. */
  constructor(deps: Deps, checked: CheckedArchive, successors: string[] = []) {
    this.#deps = deps;
    this.#checked = checked;
    this.#successors = successors;
    this.#group = this.#emptyGroup();
  }

  /** Reads all parts, and returns what is wrong with the archive. */
  async read(onPart: (part: CheckedPart) => void): Promise<string | undefined> {
    const note = async (sessionId: bigint, batch: ArchivedBatch, body: Uint8Array) => {
      const noted = { sessionId, flags: batch.flags, facts: batch };
      await this.#group.notes.note(batch.segmentId, noted, body);
    };
    let restoring: Promise<void> = Promise.resolve();
    let batches = 0;
    for await (const part of this.#checked.parts(note)) {
      onPart(part);
      batches += this.#add(part);
      const { pieces, notes } = this.#group;
      if (batches < GROUP_BATCHES && pieces.length < GROUP_PIECES && !notes.isFull) continue;
      // One at a time; the next group is read meanwhile.
      await restoring;
      restoring = this.#restoreGroup(this.#group);
      restoring.catch(() => undefined);
      this.#group = this.#emptyGroup();
      batches = 0;
    }
    await restoring;
    await this.#restoreGroup(this.#group);
    return await this.#checked.problem();
  }

  /** Returns whether its successors have all that it has. Call it after `read`. */
  async isReplaced(): Promise<boolean> {
    if (this.#successors.length === 0 || this.#pieces.length > 0) return false;
    for (const page of pagesOf(this.#contents)) {
      const held = await retryOutages(
        async () => await countHeld(this.#deps.sql, page, this.#successors),
      );
      if (held < page.length) return false;
    }
    return true;
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
          for (const notes of this.#noted) await notes.writeSums(sql);
          await (isWhole ? markReadable(sql, id) : markUnreadable(sql, [id]));
        }),
    );
  }

  /** Returns the number of batches in the part. */
  #add(part: CheckedPart): number {
    if ("content" in part) this.#contents.push(part.content);
    else if ("project" in part) this.#group.projects.push(part.project);
    else this.#group.pieces.push(part.piece);
    const batches = "piece" in part ? part.piece.batches.length : 1;
    this.records += batches + ("piece" in part ? part.piece.rows.length : 0);
    return batches;
  }

  #emptyGroup(): Group {
    return { pieces: [], projects: [], notes: this.#deps.notes() };
  }

  async #restoreGroup({ pieces, projects, notes }: Group): Promise<void> {
    const { sql } = this.#deps;
    if (pieces.length + projects.length === 0) return;
    await retryOutages(
      async () => await sql.begin(async (t) => await this.#restore(t, pieces, projects)),
    );
    const replaced = await retryOutages(
      async () => await sessionsIn(sql, pieces, this.#successors),
    );
    const left = pieces.filter(({ piece }) => !replaced.has(piece.sessionId));
    const { sources } = this.#checked;
    const others = await retryOutages(async () => await findOthers(this.#deps, left, sources));
    const withRows = await retryOutages(async () => await sessionsWithRows(sql, left));
    const isCounted = (sessionId: bigint, hash: bigint) =>
      replaced.has(sessionId) ||
      (others.counted.size > 0 && others.counted.has(`${sessionId} ${hash}`));
    await retryOutages(async () => await notes.addUp(withRows, isCounted));
    this.#noted.push(notes);
    for (const { piece, batches, lost } of left) {
      if (!others.held.has(piece.sessionId)) this.#pieces.push(piece);
      if (withRows.has(piece.sessionId)) this.#remove(piece, batches, lost);
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
    for (const page of pagesOf(this.#pieces)) await insertArchives(sql, [], page);
    for (const page of pagesOf(this.#contents))
      await restoreContents(sql, archive.id, page, sources);
  }

  /**
   * Takes the place of the archives that it was made of, as far as it has what is in them: others may
   * have the rest. Objects of those of which nothing is left are deleted as after a merge.
   */
  async #replaceSources(sql: Queryable, graceS: number): Promise<void> {
    const { archive, sources } = this.#checked;
    await sql`
      delete from session_pieces as old where archive_id = any(${sources})
        and exists (select from session_pieces as own where own.archive_id = ${archive.id} and own.session_id = old.session_id)`;
    const replaced = await sql<ArchiveName[]>`
      with replaced as (
        select id from archives where id = any(${sources}) and kind = ${archive.kind}
          and not exists (select from session_pieces where archive_id = archives.id)
          and not exists (select from image_contents where archive_id = archives.id)
        order by id for update
      )
      delete from archives using replaced where archives.id = replaced.id
      returning archives.id, project_id as "projectId", day::text`;
    if (replaced.length > 0)
      await replaceObjects(sql, replaced.map(archiveKey), [archive.id], graceS);
  }
}

function* pagesOf<Row>(rows: Row[]): Generator<Row[]> {
  for (let at = 0; at < rows.length; at += PAGE_ROWS) yield rows.slice(at, at + PAGE_ROWS);
}

/** Returns those sessions of the pieces that have pieces in the archives. */
async function sessionsIn(
  sql: Sql,
  pieces: CheckedPiece[],
  archives: string[],
): Promise<Set<bigint>> {
  if (archives.length === 0) return new Set();
  const ids = arrayLiteral(pieces.map(({ piece }) => piece.sessionId));
  const rows = await sql<{ id: bigint }[]>`
    select distinct session_id as id from session_pieces
    where session_id = any(${ids}::text::bigint[]) and archive_id = any(${archives})`;
  return new Set(rows.map(({ id }) => id));
}

/** Returns how many of the contents are in other archives. */
async function countHeld(
  sql: Sql,
  contents: ArchivedContent[],
  archives: string[],
): Promise<number> {
  const rows = contents.map(({ row: { name, sha256 } }) => ({ named: name, hash: sha256 }));
  const [row] = await sql<[{ count: number }]>`
    select count(*)::integer as count from ${unnested(sql, rows, { named: "text", hash: "text" })}
    where exists (
      select from image_contents where name = named and sha256 = decode(hash, 'hex') and archive_id = any(${archives})
    )`;
  return row.count;
}

/** Returns the sessions of which batches are in segments. */
async function sessionsWithRows(sql: Sql, pieces: CheckedPiece[]): Promise<Set<bigint>> {
  const ids = arrayLiteral(pieces.map(({ piece }) => piece.sessionId));
  const rows = await sql<{ id: bigint }[]>`
    select id from unnest(${ids}::text::bigint[]) as id where exists (select from batches where session_id = id)`;
  return new Set(rows.map(({ id }) => id));
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
