import { setTimeout } from "node:timers/promises";

import type postgres from "postgres";

import { type Queryable, type Sql } from "../../platform/database/database.ts";
import { isOutage } from "../../platform/database/postgres-errors.ts";
import { type Log } from "../../platform/logger.ts";
import { ObjectMissing, type ObjectStore } from "../../platform/objects/objects.ts";
import { claimSegments, isNeeded, restoreRows } from "./restore.ts";
import { SegmentError } from "../record.ts";
import { segmentIdOf, segmentKey, segmentTime } from "../segment.ts";
import { type Listed, type StoredSegment, readStored } from "../stored-segment.ts";
import { unknownArchives } from "./unknown-archives.ts";

const PAGE_OBJECTS = 1000;
const UNREFERENCED_MAX = 1000;
const KEYS_LOGGED_MAX = 10;

export type OrphansDeps = {
  sql: Sql;
  objects: ObjectStore;
  log: Log;
  onSwept?: (result: SweepResult) => void;
  /** Called with the number of archives that the database does not know, after each slow pass. */
  onUnknownArchives?: (count: number) => void;
};

export type OrphansOptions = {
  everyMs: number;
  /** Age, by its id and PostgreSQL's clock, up to which a segment without a row is its writer's. */
  graceMs: number;
  /** Time that the first look goes back; the slow pass finds older segments. */
  recentMs: number;
  /** Objects of the slow pass in one look, and time from one pass to the next. */
  passObjects: number;
  passMs: number;
  /** Age up to which chunks without an image are kept: longer than any upload lasts. */
  chunksMs: number;
};

const DEFAULTS: OrphansOptions = {
  everyMs: 60_000,
  graceMs: 600_000,
  recentMs: 3_600_000,
  passObjects: 5000,
  passMs: 3_600_000,
  chunksMs: 86_400_000,
};

/** Numbers of objects by what was done with them. */
export type SweepResult = { adopted: number; deleted: number; kept: number; damaged: number };

/** `kept`: chunks that nothing refers to yet. `known`: another process has indexed the segment. */
type Outcome = "adopted" | "deleted" | "kept" | "known";

/**
 * Finds orphans: segments that were stored but never indexed, because their process died in
 * between. Adopts those that hold something the index lacks, and deletes the others. Before that it
 * marks their rows as deleted: with such a tombstone the writer conflicts, should it still be
 * alive. Tombstones stay, because they are as rare as crashes, and nobody can tell how long a
 * process was frozen.
 *
 * The database may have lost rows itself, so the only copy of anything is never deleted. A chunk's
 * image is always recorded in a later segment or in the same one, so unreferenced chunks are
 * deleted only at the end of a pass over all segments, which has adopted whatever could refer to
 * them.
 */
export class Orphans {
  readonly #deps: OrphansDeps;
  readonly #options: OrphansOptions;
  /** Time up to which recent segments were looked at, in ms since the epoch. */
  #recent: number | undefined;
  /** Last key that the slow pass has seen. */
  #passed = "";
  #nextPassMs = 0;
  /** Segments with unreferenced chunks that the slow pass has seen. */
  #unreferenced: Listed[] = [];

  constructor(deps: OrphansDeps, options: Partial<OrphansOptions> = {}) {
    this.#deps = deps;
    this.#options = { ...DEFAULTS, ...options };
  }

  /** Looks for orphans at intervals until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        this.#deps.onSwept?.(await this.look(signal));
      } catch (error) {
        if (!signal.aborted) this.#deps.log.warn({ err: error }, "the search for orphans failed");
      }
      await setTimeout(this.#options.everyMs, undefined, { signal }).catch(() => undefined);
    }
  }

  /** Looks at segments that became old enough since the last look, and continues the slow pass. */
  async look(signal = new AbortController().signal): Promise<SweepResult> {
    const result: SweepResult = { adopted: 0, deleted: 0, kept: 0, damaged: 0 };
    const nowMs = await this.#nowMs();
    const dueMs = nowMs - this.#options.graceMs;
    const recentMs = this.#recent ?? dueMs - this.#options.recentMs;
    for await (const page of this.#pages(firstKey(recentMs), dueMs))
      for (const object of await this.#orphansOf(page)) {
        signal.throwIfAborted();
        await this.#settle(object, result);
      }
    this.#recent = dueMs;
    await this.#pass(nowMs, result, signal);
    if (Object.values(result).some((count) => count > 0))
      this.#deps.log.info(result, "orphans were found");
    return result;
  }

  async #pass(nowMs: number, result: SweepResult, signal: AbortSignal): Promise<void> {
    if (nowMs < this.#nextPassMs) return;
    const { graceMs, chunksMs, passObjects, passMs } = this.#options;
    let seen = 0;
    for await (const page of this.#pages(this.#passed, nowMs - graceMs)) {
      for (const object of await this.#orphansOf(page)) {
        signal.throwIfAborted();
        const outcome = await this.#settle(object, result);
        const isOld = segmentTime(segmentIdOf(object.key) ?? "") < nowMs - chunksMs;
        if (outcome === "kept" && isOld && this.#unreferenced.length < UNREFERENCED_MAX)
          this.#unreferenced.push(object);
      }
      this.#passed = page.at(-1)?.key ?? this.#passed;
      seen += page.length;
      if (seen >= passObjects) return;
    }
    this.#passed = "";
    this.#nextPassMs = nowMs + passMs;
    for (const object of this.#unreferenced.splice(0)) {
      signal.throwIfAborted();
      await this.#settle(object, result, { unreferenced: true });
    }
    await this.#reportUnknownArchives(signal);
  }

  /** Archives are never adopted or deleted here: only `reindex` verifies whole archives. */
  async #reportUnknownArchives(signal: AbortSignal): Promise<void> {
    const { log, onUnknownArchives } = this.#deps;
    const keys: string[] = [];
    let count = 0;
    for await (const key of unknownArchives(this.#deps)) {
      signal.throwIfAborted();
      if (++count <= KEYS_LOGGED_MAX) keys.push(key);
    }
    onUnknownArchives?.(count);
    if (count > 0)
      log.warn({ count, keys }, "the database does not know some archives: run floodgate reindex");
  }

  /** Yields pages of the segments beyond a key that are old enough. */
  async *#pages(after: string, dueMs: number): AsyncGenerator<Listed[]> {
    const pageObjects = Math.min(PAGE_OBJECTS, this.#options.passObjects);
    let page: Listed[] = [];
    for await (const object of this.#deps.objects.list("segments/", after)) {
      const id = segmentIdOf(object.key);
      if (id === undefined) continue;
      if (segmentTime(id) > dueMs) break;
      if (page.push(object) < pageObjects) continue;
      yield page;
      page = [];
    }
    if (page.length > 0) yield page;
  }

  /**
   * Returns the objects without a row, or with a tombstone: then a process died before it deleted
   * the object, or the writer has stored it again.
   */
  async #orphansOf(page: Listed[]): Promise<Listed[]> {
    const ids = page.map(({ key }) => segmentIdOf(key)).filter((id) => id !== undefined);
    const rows = await this.#deps.sql<{ id: string }[]>`
      select id from segments where id = any(${ids}) and not deleted`;
    const live = new Set(rows.map(({ id }) => segmentKey(id)));
    return page.filter(({ key }) => !live.has(key));
  }

  async #settle(
    object: Listed,
    result: SweepResult,
    { unreferenced }: { unreferenced: boolean } = { unreferenced: false },
  ): Promise<Outcome | undefined> {
    try {
      const segment = await readStored(this.#deps.objects, object);
      const outcome = await this.#adopt(segment, unreferenced);
      if (outcome === "deleted") await this.#deps.objects.remove(object.key);
      if (outcome !== "known") result[outcome]++;
      return outcome;
    } catch (error) {
      if (error instanceof ObjectMissing) return undefined;
      if (isOutage(error)) throw error;
      if (!(error instanceof SegmentError)) await this.#deps.objects.ping();
      // Leave it, and go on with the others.
      result.damaged++;
      this.#deps.log.warn({ err: error, key: object.key }, "an orphan could not be adopted");
      // It may hold the image of unreferenced chunks that were seen before.
      this.#unreferenced = [];
      return undefined;
    }
  }

  /** Runs in one transaction; the segment's row makes other processes and the writer wait. */
  async #adopt(segment: StoredSegment, unreferenced: boolean): Promise<Outcome> {
    return await this.#deps.sql.begin(
      async (transaction) => await adoptOrDelete(transaction, segment, unreferenced),
    );
  }

  /** Returns the time of PostgreSQL's clock: this machine's may be wrong. */
  async #nowMs(): Promise<number> {
    const [row] = await this.#deps.sql<[{ ms: number }]>`
      select (extract(epoch from clock_timestamp()) * 1000)::double precision as ms`;
    return row.ms;
  }
}

async function adoptOrDelete(
  transaction: postgres.TransactionSql<{ bigint: bigint }>,
  segment: StoredSegment,
  unreferenced: boolean,
): Promise<Outcome> {
  const { id, entries } = segment;
  const [claimed] = await claimSegments(transaction, [segment]);
  if (claimed === undefined) {
    const [row] = await transaction`select 1 from segments where id = ${id} and deleted`;
    return row === undefined ? "known" : "deleted";
  }
  if (await addsSomething(transaction, segment)) return "adopted";
  if (!unreferenced && entries.some(({ kind }) => kind === "chunk")) {
    await transaction`delete from segments where id = ${id}`;
    return "kept";
  }
  await transaction`update segments set deleted = true where id = ${id}`;
  return "deleted";
}

/** Adds the segment's records to the index; returns false, changing nothing, if none is needed. */
async function addsSomething(
  transaction: postgres.TransactionSql<{ bigint: bigint }>,
  segment: StoredSegment,
): Promise<boolean> {
  const add = async (savepoint: Queryable) => {
    const { added } = await restoreRows(savepoint, [segment], { newerGiveWay: false });
    if (added === 0 && !(await isNeeded(savepoint, segment))) throw new NothingNew();
  };
  try {
    await transaction.savepoint(add);
    return true;
  } catch (error) {
    if (error instanceof NothingNew) return false;
    throw error;
  }
}

/** Thrown to roll back the adoption of a segment. */
class NothingNew extends Error {
  override readonly name = "NothingNew";
}

/** Returns the key beyond which all segments of that time and later are. */
function firstKey(ms: number): string {
  const hex = Math.max(0, Math.floor(ms)).toString(16).padStart(12, "0");
  return segmentKey(`${hex.slice(0, 8)}-${hex.slice(8)}-0000-0000-000000000000`);
}
