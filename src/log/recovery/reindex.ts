import postgres from "postgres";

import { type Sql } from "../../platform/database/database.ts";
import { isOutage } from "../../platform/database/postgres-errors.ts";
import { type Log } from "../../platform/logger.ts";
import { inPages, readAhead } from "../../platform/streams.ts";
import { ObjectDamaged, ObjectMissing, type ObjectStore } from "../../platform/objects/objects.ts";
import { type BatchNotes, type CheckedSegment, readChecked } from "../checked-segment.ts";
import { type RowRange, isLive, missingObjects } from "./missing-objects.ts";
import {
  chunkSegments,
  claimSegments,
  insertUnknown,
  restoreBatches,
  restoreRows,
} from "./restore.ts";
import { SegmentError } from "../record.ts";
import { segmentIdOf } from "../segment.ts";
import { type Listed } from "../stored-segment.ts";
import { retryOutages } from "../../platform/database/retry-outages.ts";
import { markAbsent, markReadable, markUnreadable, unreadableOf } from "../unreadable.ts";

const PAGE_OBJECTS = 1000;
// Limits of one transaction.
const GROUP_RECORDS = 10_000;
const GROUP_OBJECTS = 1000;
const PROBLEMS_KEPT_MAX = 100_000;
export const GONE = "the object is gone";
/** Ids below and above those of all segments. */
export const NO_ID = "00000000-0000-0000-0000-000000000000";
export const LAST_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff";

export type ReindexDeps = {
  sql: Sql;
  objects: ObjectStore;
  log: Log;
  /** Writes what batches say about their sessions. */
  facts: BatchNotes;
};

export type Problem = { key: string; reason: string };

export type Reindexed = {
  /** Number of objects under `segments/`. */
  objects: number;
  /** Number of these that had a row already: indexed, or deleted. */
  known: number;
  /** Number of segments that were indexed. */
  segments: number;
  /** Number of records, without damaged ones. */
  records: number;
  /**
   * Number of objects that are not segments or differ from what was written, whether they had a row
   * or not.
   */
  damaged: number;
  /** Number of segments with a row whose object is missing. */
  missing: number;
  /** Damaged and missing objects, up to a maximum. */
  problems: Problem[];
  /** Ids of projects of which there were two, so that the younger one was deleted. */
  contested: number[];
};

/**
 * An object to check; `known` if its segment has a row that is not marked as deleted, `noted` if
 * the facts of its batches are written, `unreadable` if the segment is marked so.
 */
type Found = Listed & { known: boolean; noted: boolean; unreadable: boolean };

/**
 * Verifies every byte of every segment, and recreates the rows of everything in the store that is
 * not indexed: projects, sessions, batches, images and segments, with their ids. Servers may keep
 * running. It can be interrupted at any time and run again.
 *
 * Restores the undamaged records of a damaged segment. Also creates the rows of its damaged
 * batches, unless another copy exists, so that readers report them as missing instead of silently
 * skipping them.
 *
 * Marks missing and damaged segments as unreadable, and removes the mark of verified ones.
 */
export class Reindex {
  readonly #deps: ReindexDeps;
  #checked = 0;
  readonly #done: Reindexed = {
    objects: 0,
    known: 0,
    segments: 0,
    records: 0,
    damaged: 0,
    missing: 0,
    problems: [],
    contested: [],
  };

  constructor(deps: ReindexDeps) {
    this.#deps = deps;
  }

  /**
   * Runs over the store; `onProgress` is called for each checked object. Rejects if the database or
   * the store stays unavailable.
   */
  async run(
    onProgress: (objects: number, records: number) => void = () => undefined,
  ): Promise<Reindexed> {
    const read = async (found: Found) => {
      const segment = await this.#read(found);
      onProgress(++this.#checked, this.#done.records);
      return segment;
    };
    let restoring: Promise<void> = Promise.resolve();
    const isFull = () => this.#deps.facts.isFull;
    for await (const group of groups(readAhead(this.#found(), read), isFull)) {
      // One at a time, in the order of the ids; the next group is read meanwhile.
      await restoring;
      restoring = this.#restore(group);
      restoring.catch(() => undefined);
    }
    await restoring;
    onProgress(this.#checked, this.#done.records);
    return this.#done;
  }

  async *#found(): AsyncGenerator<Found> {
    let after = NO_ID;
    for await (const page of inPages(this.#deps.objects.list("segments/"), PAGE_OBJECTS)) {
      const ids = page.map(({ key }) => segmentIdOf(key)).filter((id) => id !== undefined);
      const rows = await retryOutages(
        async () =>
          await this.#deps.sql<{ id: string; deleted: boolean; noted: boolean }[]>`
            select id, deleted, facts_written as noted from segments where id = any(${ids})`,
      );
      const known = new Map(rows.map((row) => [row.id, row]));
      const marked = await retryOutages(async () => await unreadableOf(this.#deps.sql, ids));
      this.#done.objects += page.length;
      this.#done.known += known.size;
      for (const object of page) {
        const id = segmentIdOf(object.key) ?? "";
        const row = known.get(id);
        const noted = row?.noted ?? false;
        // A segment marked as deleted is about to be removed.
        if (row?.deleted === true) this.#checked++;
        else yield { ...object, known: row !== undefined, noted, unreadable: marked.has(id) };
      }
      const last = ids.at(-1);
      if (last === undefined) continue;
      await this.#reportMissing({ after, last, listed: ids });
      after = last;
    }
    await this.#reportMissing({ after, last: LAST_ID, listed: [] });
  }

  /** Returns undefined if there is nothing to restore. */
  async #read(found: Found): Promise<CheckedSegment | undefined> {
    const segment = await this.#readChecked(found);
    if (segment === undefined) return undefined;
    if (segment.problem !== undefined) await this.#markDamaged(found.key, segment.problem);
    else if (found.unreadable)
      await retryOutages(async () => await markReadable(this.#deps.sql, segment.id));
    if (found.known && !found.noted) await this.#writeFacts([segment.id]);
    return found.known ? undefined : segment;
  }

  /** Reads a segment. Reports a missing object, or one that is not a segment, and returns undefined. */
  async #readChecked(found: Found): Promise<CheckedSegment | undefined> {
    const { objects, log, facts } = this.#deps;
    try {
      return await readChecked(objects, found, found.noted ? undefined : facts);
    } catch (error) {
      facts.forget([segmentIdOf(found.key) ?? ""]);
      if (error instanceof ObjectMissing) {
        // An object without a row was garbage collected as an orphan meanwhile.
        if (found.known && (await isLive(this.#deps.sql, found.key)))
          await this.#markMissing([found.key]);
        return undefined;
      }
      // Throws if the store is unavailable: then the object need not be damaged.
      if (!(error instanceof SegmentError || error instanceof ObjectDamaged)) await objects.ping();
      await this.#markDamaged(found.key, error);
      log.debug({ err: error, key: found.key }, "not reindexed");
      return undefined;
    }
  }

  async #restore(segments: CheckedSegment[]): Promise<void> {
    try {
      await retryOutages(async () => await this.#restoreOnce(segments));
    } catch (error) {
      // PostgreSQL refuses some row: restore the segments one by one, to find the one that has it.
      if (!(error instanceof postgres.PostgresError) || isOutage(error)) throw error;
      if (segments.length > 1) for (const segment of segments) await this.#restore([segment]);
      else for (const { key } of segments) this.#reportDamaged(key, error);
    }
  }

  async #restoreOnce(segments: CheckedSegment[]): Promise<void> {
    const { fresh, contested } = await this.#deps.sql.begin(async (transaction) => {
      const claimed = await claimSegments(transaction, segments);
      await markAbsent(transaction, chunkSegments(claimed));
      const ids = claimed.map(({ id }) => id);
      await this.#deps.facts.leaveOutWritten(transaction, ids);
      const restored = await restoreRows(transaction, claimed.map(wholeOf), { newerGiveWay: true });
      const lost = claimed.flatMap(({ id, damaged }) =>
        damaged.length > 0 ? { id, entries: damaged } : [],
      );
      if (lost.length > 0) await restoreBatches(transaction, lost, { newerGiveWay: false });
      // Their starts may be recorded in archives.
      await insertUnknown(transaction, claimed.flatMap(sessionsOf));
      return { fresh: claimed, ...restored };
    });
    await this.#writeFacts(fresh.map(({ id }) => id));
    this.#deps.facts.forget(segments.map(({ id }) => id));
    this.#done.known += segments.length - fresh.length;
    this.#done.segments += fresh.length;
    this.#done.records += fresh.reduce(
      (sum, { entries, damaged }) => sum + entries.length - damaged.length,
      0,
    );
    for (const id of contested)
      if (!this.#done.contested.includes(id)) this.#done.contested.push(id);
  }

  async #writeFacts(ids: string[]): Promise<void> {
    await retryOutages(async () => await this.#deps.facts.write(ids));
  }

  async #markDamaged(key: string, reason: unknown): Promise<void> {
    this.#reportDamaged(key, reason);
    await this.#mark([key]);
  }

  #reportDamaged(key: string, reason: unknown): void {
    this.#done.damaged++;
    this.#report(key, reason instanceof Error ? reason.message : String(reason));
  }

  async #reportMissing(range: RowRange): Promise<void> {
    for await (const keys of missingObjects(this.#deps, range)) await this.#markMissing(keys);
  }

  async #markMissing(keys: string[]): Promise<void> {
    this.#done.missing += keys.length;
    for (const key of keys) this.#report(key, GONE);
    await this.#mark(keys);
  }

  async #mark(keys: string[]): Promise<void> {
    const ids = keys.map(segmentIdOf).filter((id) => id !== undefined);
    await retryOutages(async () => await markUnreadable(this.#deps.sql, ids));
  }

  #report(key: string, reason: string): void {
    if (this.#done.problems.length < PROBLEMS_KEPT_MAX) this.#done.problems.push({ key, reason });
  }
}

/** Returns the sessions of batches. */
function sessionsOf({ entries }: CheckedSegment): bigint[] {
  return entries.flatMap(({ kind, sessionId }) => (kind === "batch" ? sessionId : []));
}

/** Returns the segment without its damaged records. */
function wholeOf(segment: CheckedSegment): CheckedSegment {
  if (segment.damaged.length === 0) return segment;
  const damaged = new Set(segment.damaged);
  return { ...segment, entries: segment.entries.filter((entry) => !damaged.has(entry)) };
}

async function* groups(
  segments: AsyncIterable<CheckedSegment>,
  isFull: () => boolean,
): AsyncGenerator<CheckedSegment[]> {
  let group: CheckedSegment[] = [];
  let records = 0;
  for await (const segment of segments) {
    group.push(segment);
    records += segment.entries.length;
    if (records < GROUP_RECORDS && group.length < GROUP_OBJECTS && !isFull()) continue;
    yield group;
    group = [];
    records = 0;
  }
  if (group.length > 0) yield group;
}
