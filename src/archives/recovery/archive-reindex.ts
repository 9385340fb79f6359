import postgres from "postgres";

import { isGone } from "../../log/recovery/missing-objects.ts";
import { SegmentError } from "../../log/record.ts";
import { GONE, type Problem } from "../../log/recovery/reindex.ts";
import { markReadable, markUnreadable } from "../../log/unreadable.ts";
import { type Sql } from "../../platform/database/database.ts";
import { isOutage } from "../../platform/database/postgres-errors.ts";
import { retryOutages } from "../../platform/database/retry-outages.ts";
import { type Log } from "../../platform/logger.ts";
import { ObjectDamaged, ObjectMissing, type ObjectStore } from "../../platform/objects/objects.ts";
import { type Day, type Found, archiveDays, selectDay } from "./archive-days.ts";
import { ArchiveIntake, type ArchivedNotes } from "./archive-intake.ts";
import { type ArchiveName, archiveKey } from "../archive-key.ts";
import { CheckedArchive, type CheckedPart } from "./checked-archive.ts";
import { replaceObjects } from "../object-garbage.ts";

const PROBLEMS_KEPT_MAX = 100_000;

export type ArchiveReindexDeps = {
  sql: Sql;
  objects: ObjectStore;
  log: Log;
  /** Makes notes about the batches of an archive. */
  notes: () => ArchivedNotes;
  /** Time after which objects that others replace may be deleted. */
  graceS: number;
  /** Ids of segments with a row whose objects are missing. */
  missing: ReadonlySet<string>;
};

export type ArchivesReindexed = {
  /** Number of objects under `archives/`. */
  objects: number;
  /** Number of these that had a row already. */
  known: number;
  /** Number of archives that were indexed. */
  archives: number;
  /** Number of batches, images and rows in these. */
  records: number;
  /** Number of objects that others replace, or that are about to be deleted. */
  replaced: number;
  /** Number of objects that are not archives or differ from what was written. */
  damaged: number;
  /** Number of archives with a row whose object is missing. */
  missing: number;
  /** Damaged and missing objects, up to a maximum. */
  problems: Problem[];
  /** Ids of projects of which there were two, so that the younger one was deleted. */
  contested: number[];
};

type Taken = { state: "taken" | "replaced" | "damaged"; sources: string[] };
type Damaged = { found: Found; by: string[]; sources: string[] };

/**
 * Verifies every byte of every archive, and recreates the rows of those that have none. Run it after
 * the segments were restored: what an archive has is moved into it, so that each record counts once.
 * Servers may keep running. It can be interrupted at any time and run again.
 *
 * Archives are merged within a project's day, so those of a day are looked at together. What a whole
 * archive was made of gives way to it, session by session, because a merge may write several. A
 * damaged archive is taken in only if something that it was made of is gone.
 */
export class ArchiveReindex {
  readonly #deps: ArchiveReindexDeps;
  readonly #done: ArchivesReindexed = {
    objects: 0,
    known: 0,
    archives: 0,
    records: 0,
    replaced: 0,
    damaged: 0,
    missing: 0,
    problems: [],
    contested: [],
  };
  /** Missing segments of which archives have something. */
  readonly archivedSegments = new Set<string>();
  #checked = 0;
  #onProgress: (objects: number, records: number) => void = () => undefined;

  constructor(deps: ArchiveReindexDeps) {
    this.#deps = deps;
  }

  /** Runs over the store. Rejects if the database or the store stays unavailable. */
  async run(onProgress = this.#onProgress): Promise<ArchivesReindexed> {
    this.#onProgress = onProgress;
    const onForeign = (key: string) =>
      this.#report(key, new SegmentError("the key is not that of an archive"));
    for await (const day of archiveDays(this.#deps, onForeign)) {
      this.#done.objects += day.listed.length;
      await this.#takeDay(day);
    }
    return this.#done;
  }

  async #takeDay(day: Day): Promise<void> {
    const { found, gone } = await retryOutages(async () => await selectDay(this.#deps.sql, day));
    const ids = new Set([...found, ...gone].map(({ id }) => id));
    // Whole archives with a row, by what they were made of.
    const successors = new Map<string, Set<string>>();
    const succeeds = (id: string, sources: string[]) => {
      for (const source of sources)
        if (ids.has(source)) successors.set(source, (successors.get(source) ?? new Set()).add(id));
        else if (this.#deps.missing.has(source)) this.archivedSegments.add(source);
    };
    for (const one of found.filter(({ known }) => known)) {
      this.#done.known++;
      const sources = await this.#verify(one);
      if (sources !== undefined) succeeds(one.id, sources);
    }
    const damaged: Damaged[] = [];
    // The newest first, because they name those that they were made of.
    for (const one of found.filter(({ known }) => !known).toReversed()) {
      const by = [...(successors.get(one.id) ?? [])];
      const taken = await this.#takeOrLeave(one, by);
      if (taken?.state === "taken") succeeds(one.id, taken.sources);
      else if (taken?.state === "replaced") for (const id of by) succeeds(id, taken.sources);
      else if (taken !== undefined) damaged.push({ found: one, by, sources: taken.sources });
      this.#onProgress(++this.#checked, this.#done.records);
    }
    for (const { found: one, by, sources } of damaged)
      if (!(await this.#areReadable(sources))) await this.#takeIn(one, by, { isLastCopy: true });
    await this.#reportMissing(gone);
  }

  async #takeOrLeave(found: Found, successors: string[]): Promise<Taken | undefined> {
    if (!found.listed || (await this.#isNeeded(found)))
      return await this.#takeIn(found, successors, { isLastCopy: false });
    this.#done.replaced++;
    return undefined;
  }

  /** Reads an archive with a row; returns what it was made of if it is whole. */
  async #verify(found: Found): Promise<string[] | undefined> {
    const sources = await this.#read(found, async (checked) => {
      for await (const part of checked.parts()) this.#look(part);
      const problem = await checked.problem();
      if (problem !== undefined) throw new SegmentError(problem);
      return checked.sources;
    });
    if (sources !== undefined && found.unreadable)
      await retryOutages(async () => await markReadable(this.#deps.sql, found.id));
    this.#onProgress(++this.#checked, this.#done.records);
    return sources;
  }

  /**
   * Takes in what successors of an archive do not have; of a damaged one only if that is the last
   * copy. Returns undefined if nothing in it can be located.
   */
  async #takeIn(
    found: Found,
    successors: string[],
    { isLastCopy }: { isLastCopy: boolean },
  ): Promise<Taken | undefined> {
    const { sql, objects, notes, graceS } = this.#deps;
    return await this.#read(found, async (checked) => {
      const { sources } = checked;
      const intake = new ArchiveIntake({ sql, objects, notes }, checked, successors);
      const problem = await intake.read((part) => this.#look(part));
      for (const id of intake.contested)
        if (!this.#done.contested.includes(id)) this.#done.contested.push(id);
      const isWhole = problem === undefined;
      // It was reported when it was read first.
      if (!isWhole && !isLastCopy) await this.#markDamaged(found, new SegmentError(problem));
      if (!isWhole && !isLastCopy) return { state: "damaged", sources };
      if (await intake.isReplaced()) {
        await this.#replace(found, successors);
        return { state: "replaced", sources };
      }
      await intake.commit({ graceS, isWhole });
      this.#done.archives++;
      this.#done.records += intake.records;
      return { state: "taken", sources };
    });
  }

  /** Notes which of the missing segments records come from. */
  #look(part: CheckedPart): void {
    if (!("piece" in part)) return;
    for (const { segmentId } of [...part.piece.rows, ...part.piece.batches])
      if (this.#deps.missing.has(segmentId)) this.archivedSegments.add(segmentId);
  }

  /** Lists an object for deletion, because archives with rows have all that it has. */
  async #replace({ key, listed }: Found, by: string[]): Promise<void> {
    this.#done.replaced++;
    if (listed) return;
    const { sql, graceS } = this.#deps;
    await retryOutages(
      async () => await sql.begin(async (t) => await replaceObjects(t, [key], by, graceS)),
    );
  }

  /** Returns whether an object that is listed for deletion may be the only copy of something. */
  async #isNeeded(found: Found): Promise<boolean> {
    const { sql } = this.#deps;
    if (found.replacedBy?.length === 0) return false;
    if (found.replacedBy !== null) {
      const by = found.replacedBy;
      const rows = await retryOutages(
        async () => await sql`select 1 from archives where id = any(${by}) limit 1`,
      );
      return rows.length === 0;
    }
    const sources = await this.#read(
      found,
      async (checked) => await Promise.resolve(checked.sources),
    );
    return sources !== undefined && !(await this.#areReadable(sources));
  }

  /** Returns whether all sources are there, and not known to be damaged, or in archives that are. */
  async #areReadable(sources: string[]): Promise<boolean> {
    const rows = await retryOutages(
      async () =>
        await this.#deps.sql`
          select 1 from unnest(${sources}::uuid[]) as source where not exists (
            select from segments where id = source and (archived_at is not null or not deleted)
          ) and not exists (select from archives where id = source)
            or exists (select from unreadable_segments where segment_id = source) limit 1`,
    );
    return sources.length > 0 && rows.length === 0;
  }

  async #reportMissing(gone: ArchiveName[]): Promise<void> {
    for (const name of gone)
      if ((await isGone(this.#deps.objects, archiveKey(name))) && (await this.#hasRow(name)))
        await this.#markMissing(name);
  }

  async #hasRow({ id }: ArchiveName): Promise<boolean> {
    const rows = await retryOutages(
      async () => await this.#deps.sql`select 1 from archives where id = ${id}`,
    );
    return rows.length > 0;
  }

  /** Reads an archive. Reports one that is missing, or not an archive, and returns undefined. */
  async #read<Result>(
    found: Found,
    work: (checked: CheckedArchive) => Promise<Result>,
  ): Promise<Result | undefined> {
    const { objects, log } = this.#deps;
    try {
      return await work(await CheckedArchive.open(objects, found));
    } catch (error) {
      if (error instanceof ObjectMissing) {
        // An archive without a row was deleted meanwhile.
        if (await this.#hasRow(found)) await this.#markMissing(found);
        return undefined;
      }
      if (isOutage(error)) throw error;
      const isRefused = error instanceof postgres.PostgresError;
      // Throws if the store is unavailable: then the object need not be damaged.
      if (!(error instanceof SegmentError || error instanceof ObjectDamaged || isRefused))
        await objects.ping();
      log.debug({ err: error, key: found.key }, "not reindexed");
      await this.#markDamaged(found, error);
      return undefined;
    }
  }

  async #markDamaged({ id, key }: Found, reason: unknown): Promise<void> {
    this.#report(key, reason);
    await retryOutages(async () => await markUnreadable(this.#deps.sql, [id]));
  }

  async #markMissing(name: ArchiveName): Promise<void> {
    this.#done.missing++;
    this.#keep({ key: archiveKey(name), reason: GONE });
    await retryOutages(async () => await markUnreadable(this.#deps.sql, [name.id]));
  }

  #report(key: string, error: unknown): void {
    this.#done.damaged++;
    this.#keep({ key, reason: error instanceof Error ? error.message : String(error) });
  }

  #keep(problem: Problem): void {
    if (this.#done.problems.length < PROBLEMS_KEPT_MAX) this.#done.problems.push(problem);
  }
}
