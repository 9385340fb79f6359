import pRetry from "p-retry";
import postgres from "postgres";

import { type Sql, isOutage } from "../platform/database.ts";
import { type Log } from "../platform/log.ts";
import { ObjectMissing, type ObjectStore } from "../platform/objects.ts";
import { claimSegments, restoreRows } from "./restore.ts";
import { SegmentError, segmentIdOf } from "./segment.ts";
import { type Listed, type StoredSegment, readStored } from "./stored-segment.ts";

const PAGE_OBJECTS = 1000;
// What is read ahead: objects of these bytes together, whose footers are a small part, and no more than so many.
const AHEAD_BYTES = 32 * 2 ** 20;
const AHEAD_OBJECTS = 32;
// What one transaction restores.
const GROUP_RECORDS = 10_000;
const GROUP_OBJECTS = 1000;
const READ_RETRIES = 3;
const RESTORE_RETRIES = 15;
const DAMAGED_KEPT_MAX = 1000;

export type ReindexDeps = { sql: Sql; objects: ObjectStore; log: Log };

export type Damaged = { key: string; reason: string };

export type Reindexed = {
  /** objects under `segments/` */
  objects: number;
  /** of these, those that had a row already: indexed, or deleted */
  known: number;
  /** what was indexed */
  segments: number;
  records: number;
  /** objects that are no segments, or damaged; the first thousand of them are in `problems` */
  damaged: number;
  problems: Damaged[];
  /** ids of projects of which there were two, so that the younger one gave way */
  contested: number[];
};

/**
 * Makes the rows of everything that is in the store and not indexed: projects, sessions, batches, images, segments, with their ids.
 * Servers may go on meanwhile. What is damaged is skipped. It can be broken off anywhere and called again.
 */
export class Reindex {
  readonly #deps: ReindexDeps;
  readonly #done: Reindexed = {
    objects: 0,
    known: 0,
    segments: 0,
    records: 0,
    damaged: 0,
    problems: [],
    contested: [],
  };

  constructor(deps: ReindexDeps) {
    this.#deps = deps;
  }

  /** `onProgress` is called after each group. Rejects when the database or the store stays away. */
  async run(onProgress: (done: Reindexed) => void = () => undefined): Promise<Reindexed> {
    let restoring: Promise<void> = Promise.resolve();
    for await (const group of groups(readAhead(this.#unknown(), (one) => this.#read(one)))) {
      // One at a time, in the order of the ids; the next group is read meanwhile.
      await restoring;
      onProgress(this.#done);
      restoring = this.#restore(group);
      restoring.catch(() => undefined);
    }
    await restoring;
    onProgress(this.#done);
    return this.#done;
  }

  async *#unknown(): AsyncGenerator<Listed> {
    for await (const page of pages(this.#deps.objects.list("segments/"))) {
      const ids = page.map(({ key }) => segmentIdOf(key)).filter((id) => id !== undefined);
      const rows = await retried(
        async () =>
          await this.#deps.sql<{ id: string }[]>`select id from segments where id = any(${ids})`,
      );
      const known = new Set(rows.map(({ id }) => id));
      this.#done.objects += page.length;
      this.#done.known += known.size;
      yield* page.filter(({ key }) => !known.has(segmentIdOf(key) ?? ""));
    }
  }

  /** Undefined for what is to be skipped. */
  async #read(object: Listed): Promise<StoredSegment | undefined> {
    const { objects, log } = this.#deps;
    try {
      return await pRetry(async () => await readStored(objects, object), {
        retries: READ_RETRIES,
        minTimeout: 200,
        shouldRetry: ({ error }) => !isFinal(error),
      });
    } catch (error) {
      // It was collected as an orphan in the meantime.
      if (error instanceof ObjectMissing) return undefined;
      // A store that is away is not one damaged object.
      if (!isFinal(error)) await objects.ping();
      this.#report(object.key, error);
      log.debug({ err: error, key: object.key }, "not reindexed");
      return undefined;
    }
  }

  async #restore(segments: StoredSegment[]): Promise<void> {
    try {
      await retried(async () => await this.#restoreOnce(segments));
    } catch (error) {
      // PostgreSQL does not take something in it: all but that.
      if (!(error instanceof postgres.PostgresError) || isOutage(error)) throw error;
      if (segments.length > 1) for (const segment of segments) await this.#restore([segment]);
      else for (const { key } of segments) this.#report(key, error);
    }
  }

  async #restoreOnce(segments: StoredSegment[]): Promise<void> {
    const { fresh, contested } = await this.#deps.sql.begin(async (transaction) => {
      const claimed = await claimSegments(transaction, segments);
      const restored = await restoreRows(transaction, claimed, { newerGiveWay: true });
      return { fresh: claimed, ...restored };
    });
    this.#done.known += segments.length - fresh.length;
    this.#done.segments += fresh.length;
    this.#done.records += fresh.reduce((sum, { entries }) => sum + entries.length, 0);
    for (const id of contested)
      if (!this.#done.contested.includes(id)) this.#done.contested.push(id);
  }

  #report(key: string, error: unknown): void {
    this.#done.damaged++;
    if (this.#done.problems.length < DAMAGED_KEPT_MAX)
      this.#done.problems.push({
        key,
        reason: error instanceof Error ? error.message : String(error),
      });
  }
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

/** In the order of `listed`, with as much under way as the bounds allow. */
async function* readAhead(
  listed: AsyncIterable<Listed>,
  read: (object: Listed) => Promise<StoredSegment | undefined>,
): AsyncGenerator<StoredSegment> {
  const ahead: { bytes: number; reading: Promise<StoredSegment | undefined> }[] = [];
  let bytesAhead = 0;
  const next = async () => {
    const first = ahead.shift();
    bytesAhead -= first?.bytes ?? 0;
    return await first?.reading;
  };
  for await (const object of listed) {
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

async function* groups(segments: AsyncIterable<StoredSegment>): AsyncGenerator<StoredSegment[]> {
  let group: StoredSegment[] = [];
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

/** Through an outage of some 20 seconds; a commit whose answer was lost is found when it is tried again. */
async function retried<T>(work: () => Promise<T>): Promise<T> {
  return await pRetry(work, {
    retries: RESTORE_RETRIES,
    minTimeout: 100,
    maxTimeout: 2000,
    shouldRetry: ({ error }) => isOutage(error),
  });
}

function isFinal(error: unknown): boolean {
  return error instanceof SegmentError || error instanceof ObjectMissing;
}
