import postgres from "postgres";

import { type Sql, isOutage } from "../platform/database.ts";
import { type Log } from "../platform/log.ts";
import { ObjectDamaged, ObjectMissing, type ObjectStore } from "../platform/objects.ts";
import { type CheckedSegment, readChecked } from "./checked-segment.ts";
import { type RowRange, isLive, missingObjects } from "./missing-objects.ts";
import { claimSegments, restoreBatches, restoreRows } from "./restore.ts";
import { SegmentError, segmentIdOf } from "./segment.ts";
import { type Listed } from "./stored-segment.ts";
import { throughOutage } from "./through-outage.ts";

const PAGE_OBJECTS = 1000;
// What is read ahead: objects of these bytes together, and no more than so many.
const AHEAD_BYTES = 32 * 2 ** 20;
const AHEAD_OBJECTS = 32;
// What one transaction restores.
const GROUP_RECORDS = 10_000;
const GROUP_OBJECTS = 1000;
const PROBLEMS_KEPT_MAX = 100_000;
const NO_ID = "00000000-0000-0000-0000-000000000000";
const LAST_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff";

export type ReindexDeps = { sql: Sql; objects: ObjectStore; log: Log };

export type Problem = { key: string; reason: string };

export type Reindexed = {
  /** objects under `segments/` */
  objects: number;
  /** of these, those that had a row already: indexed, or deleted */
  known: number;
  /** what was indexed */
  segments: number;
  /** without those that are damaged */
  records: number;
  /** objects that are no segments, or of which something is not what was written, known or not */
  damaged: number;
  /** segments with a row whose object is gone */
  missing: number;
  /** what is damaged or missing, as far as it can be kept */
  problems: Problem[];
  /** ids of projects of which there were two, so that the younger one gave way */
  contested: number[];
};

/** An object to look at; `known`: its segment has a row, and is not deleted. */
type Found = Listed & { known: boolean };

/**
 * Looks at every byte of every segment, and makes the rows of everything that is in the store and not indexed: projects, sessions, batches,
 * images, segments, with their ids. Servers may go on meanwhile. It can be broken off anywhere and called again.
 *
 * Of a damaged segment what is whole is restored. The rows of its damaged batches are made, too, as far as no other copy is there, so that
 * readers name them as missing instead of taking the rest for the whole.
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

  /** `onProgress` hears of each object that was looked at. Rejects when the database or the store stays away. */
  async run(
    onProgress: (objects: number, records: number) => void = () => undefined,
  ): Promise<Reindexed> {
    const read = async (found: Found) => {
      const segment = await this.#read(found);
      onProgress(++this.#checked, this.#done.records);
      return segment;
    };
    let restoring: Promise<void> = Promise.resolve();
    for await (const group of groups(readAhead(this.#found(), read))) {
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
    for await (const page of pages(this.#deps.objects.list("segments/"))) {
      const ids = page.map(({ key }) => segmentIdOf(key)).filter((id) => id !== undefined);
      const rows = await throughOutage(
        async () =>
          await this.#deps.sql<{ id: string; deleted: boolean }[]>`
            select id, deleted from segments where id = any(${ids})`,
      );
      const deleted = new Map(rows.map((row) => [row.id, row.deleted]));
      this.#done.objects += page.length;
      this.#done.known += deleted.size;
      for (const object of page) {
        const isDeleted = deleted.get(segmentIdOf(object.key) ?? "");
        // A deleted one is about to go.
        if (isDeleted !== true) yield { ...object, known: isDeleted === false };
        else this.#checked++;
      }
      const last = ids.at(-1);
      if (last === undefined) continue;
      await this.#reportMissing({ after, last, listed: ids });
      after = last;
    }
    await this.#reportMissing({ after, last: LAST_ID, listed: [] });
  }

  /** Undefined for what is not to be restored. */
  async #read(found: Found): Promise<CheckedSegment | undefined> {
    const { objects, log } = this.#deps;
    try {
      const segment = await readChecked(objects, found);
      if (segment.problem !== undefined) this.#reportDamaged(found.key, segment.problem);
      return found.known ? undefined : segment;
    } catch (error) {
      if (error instanceof ObjectMissing) {
        // Without a row it was collected as an orphan in the meantime.
        if (found.known && (await isLive(this.#deps.sql, found.key))) this.#countMissing(found.key);
        return undefined;
      }
      // A store that is away is not one damaged object.
      if (!(error instanceof SegmentError || error instanceof ObjectDamaged)) await objects.ping();
      this.#reportDamaged(found.key, error);
      log.debug({ err: error, key: found.key }, "not reindexed");
      return undefined;
    }
  }

  async #restore(segments: CheckedSegment[]): Promise<void> {
    try {
      await throughOutage(async () => await this.#restoreOnce(segments));
    } catch (error) {
      // PostgreSQL does not take something in it: all but that.
      if (!(error instanceof postgres.PostgresError) || isOutage(error)) throw error;
      if (segments.length > 1) for (const segment of segments) await this.#restore([segment]);
      else for (const { key } of segments) this.#reportDamaged(key, error);
    }
  }

  async #restoreOnce(segments: CheckedSegment[]): Promise<void> {
    const { fresh, contested } = await this.#deps.sql.begin(async (transaction) => {
      const claimed = await claimSegments(transaction, segments);
      const restored = await restoreRows(transaction, claimed.map(wholeOf), { newerGiveWay: true });
      const lost = claimed.flatMap(({ id, damaged }) =>
        damaged.length > 0 ? { id, entries: damaged } : [],
      );
      if (lost.length > 0) await restoreBatches(transaction, lost, { newerGiveWay: false });
      return { fresh: claimed, ...restored };
    });
    this.#done.known += segments.length - fresh.length;
    this.#done.segments += fresh.length;
    this.#done.records += fresh.reduce(
      (sum, { entries, damaged }) => sum + entries.length - damaged.length,
      0,
    );
    for (const id of contested)
      if (!this.#done.contested.includes(id)) this.#done.contested.push(id);
  }

  #reportDamaged(key: string, reason: unknown): void {
    this.#done.damaged++;
    this.#report(key, reason instanceof Error ? reason.message : String(reason));
  }

  async #reportMissing(range: RowRange): Promise<void> {
    for await (const key of missingObjects(this.#deps, range)) this.#countMissing(key);
  }

  #countMissing(key: string): void {
    this.#done.missing++;
    this.#report(key, "the object is gone");
  }

  #report(key: string, reason: string): void {
    if (this.#done.problems.length < PROBLEMS_KEPT_MAX) this.#done.problems.push({ key, reason });
  }
}

/** Without the records that are damaged. */
function wholeOf(segment: CheckedSegment): CheckedSegment {
  if (segment.damaged.length === 0) return segment;
  const damaged = new Set(segment.damaged);
  return { ...segment, entries: segment.entries.filter((entry) => !damaged.has(entry)) };
}

async function* pages(listed: AsyncIterable<Listed>): AsyncGenerator<Listed[]> {
  let page: Listed[] = [];
  for await (const object of listed) {
    if (page.push(object) < PAGE_OBJECTS) continue;
    yield page;
    page = [];
  }
  if (page.length > 0) yield page;
}

/** In the order of `found`, with as much under way as the bounds allow. */
async function* readAhead(
  found: AsyncIterable<Found>,
  read: (object: Found) => Promise<CheckedSegment | undefined>,
): AsyncGenerator<CheckedSegment> {
  const ahead: { bytes: number; reading: Promise<CheckedSegment | undefined> }[] = [];
  let bytesAhead = 0;
  const next = async () => {
    const first = ahead.shift();
    bytesAhead -= first?.bytes ?? 0;
    return await first?.reading;
  };
  for await (const object of found) {
    while (ahead.length > 0 && isFull(ahead.length, bytesAhead + object.bytes)) {
      const segment = await next();
      if (segment !== undefined) yield segment;
    }
    const reading = read(object);
    // It is awaited later: a failure must not count as unhandled until then.
    reading.catch(() => undefined);
    ahead.push({ bytes: object.bytes, reading });
    bytesAhead += object.bytes;
  }
  while (ahead.length > 0) {
    const segment = await next();
    if (segment !== undefined) yield segment;
  }
}

function isFull(objects: number, bytes: number): boolean {
  return objects >= AHEAD_OBJECTS || bytes > AHEAD_BYTES;
}

async function* groups(segments: AsyncIterable<CheckedSegment>): AsyncGenerator<CheckedSegment[]> {
  let group: CheckedSegment[] = [];
  let records = 0;
  for await (const segment of segments) {
    group.push(segment);
    records += segment.entries.length;
    if (records < GROUP_RECORDS && group.length < GROUP_OBJECTS) continue;
    yield group;
    group = [];
    records = 0;
  }
  if (group.length > 0) yield group;
}
