import { setTimeout } from "node:timers/promises";

import { LRUCache } from "lru-cache";
import pLimit from "p-limit";

import { isLost } from "../log/checked-segment.ts";
import { segmentKey } from "../log/segment.ts";
import { readEnd } from "../log/stored-segment.ts";
import { markUnreadable } from "../log/unreadable.ts";
import { type Queryable, type Sql } from "../platform/database/database.ts";
import { arrayLiteral } from "../platform/database/unnested.ts";
import { type Log } from "../platform/logger.ts";
import { ObjectMissing, type ObjectStore } from "../platform/objects/objects.ts";
import { warnRarely } from "../platform/rare-warnings.ts";
import { sessionsOf } from "./leased-segments.ts";
import { type SourceSegment, referredSegments } from "./swap.ts";

const PAGE_SEGMENTS = 100;
const CALLS_AT_A_TIME = 8;
// Longer than any upload lasts: until its end, no row refers to its chunks.
const CHUNKS_S = 86_400;
// Time for which tombstones stay, because nobody knows how long a process was frozen.
const TOMBSTONE_S = 30 * 86_400;
const WITH_CHUNKS_MAX = 100_000;

export type DropDeps = { sql: Sql; objects: ObjectStore; log: Log };
export type DropOptions = {
  /** Time for which a segment stays after it was archived. */
  feedS: number;
  everyMs: number;
};

/** `at` is the time of archiving, as PostgreSQL writes it; `isOld`: no upload can still use its chunks. */
type Row = { id: string; bytes: number; at: string; isOld: boolean };

/**
 * Deletes the objects of segments some time after they were archived, unless a row still refers to
 * them. A tombstone stays for a while, so that an object that comes back is deleted again.
 */
export class Drop {
  readonly #deps: DropDeps;
  readonly #options: DropOptions;
  /** Segments with chunks that are too young, so that they are not read each time. */
  readonly #withChunks = new LRUCache<string, true>({ max: WITH_CHUNKS_MAX });

  constructor(deps: DropDeps, options: DropOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  /** Deletes what is due repeatedly until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.look(signal);
      } catch (error) {
        if (!signal.aborted)
          warnRarely(this.#deps.log, { err: error }, "archived segments were not deleted");
      }
      await setTimeout(this.#options.everyMs, undefined, { signal }).catch(() => undefined);
    }
  }

  /** Deletes all segments and tombstones that are due; returns the number of segments. */
  async look(signal = new AbortController().signal): Promise<number> {
    let dropped = 0;
    let after = { at: "-infinity", id: "00000000-0000-0000-0000-000000000000" };
    for (;;) {
      signal.throwIfAborted();
      const page = await this.#due(after);
      dropped += await this.#drop(page);
      after = page.at(-1) ?? after;
      if (page.length < PAGE_SEGMENTS) break;
    }
    while (!signal.aborted && (await this.#forget()));
    return dropped;
  }

  async #due(after: { at: string; id: string }): Promise<Row[]> {
    const { feedS } = this.#options;
    return await this.#deps.sql<Row[]>`
      select id, bytes, archived_at::text as at, archived_at < now() - ${CHUNKS_S} * interval '1 second' as "isOld"
      from segments
      where archived_at < now() - ${feedS} * interval '1 second' and not deleted
        and (archived_at, id) > (${after.at}::text::timestamptz, ${after.id})
        and not exists (select from unreadable_segments where segment_id = id)
      order by archived_at, id limit ${PAGE_SEGMENTS}`;
  }

  async #drop(page: Row[]): Promise<number> {
    const { sql, objects } = this.#deps;
    const ids = page.map(({ id }) => id);
    const used = await usedByImages(sql, ids);
    const asked = page.filter(
      ({ id, isOld }) => !used.has(id) && (isOld || !this.#withChunks.has(id)),
    );
    const limit = pLimit(CALLS_AT_A_TIME);
    const found = await limit.map(asked, async (row) => await this.#sourceOf(row));
    const sources = found.filter((source) => source !== undefined);
    if (sources.length === 0) return 0;
    const dropped = await sql.begin(async (transaction) => await bury(transaction, sources));
    await limit.map(dropped, async (id) => await objects.remove(segmentKey(id)));
    return dropped.length;
  }

  /** Reads which sessions have batches in the segment; undefined if it must stay. */
  async #sourceOf({ id, bytes, isOld }: Row): Promise<SourceSegment | undefined> {
    const { sql, objects, log } = this.#deps;
    const key = segmentKey(id);
    try {
      const { footer } = await readEnd(objects, { key, bytes });
      const hasChunks = footer.entries.some(({ kind }) => kind === "chunk");
      if (!hasChunks || isOld) return { id, sessions: sessionsOf(footer.entries) };
      this.#withChunks.set(id, true);
    } catch (error) {
      if (!isLost(error)) throw error;
      // No row referred to it when it was archived.
      if (error instanceof ObjectMissing) return { id, sessions: [] };
      log.error({ err: error, key }, "an archived segment cannot be read");
      await markUnreadable(sql, [id]);
    }
    return undefined;
  }

  /** Deletes the tombstones that are old enough; returns whether there may be more. */
  async #forget(): Promise<boolean> {
    const { sql, objects } = this.#deps;
    const rows = await sql<{ id: string }[]>`
      select id from segments
      where deleted and archived_at < now() - ${this.#options.feedS + TOMBSTONE_S} * interval '1 second'
      order by archived_at limit ${PAGE_SEGMENTS}`;
    const ids = rows.map(({ id }) => id);
    if (ids.length === 0) return false;
    // Once more: a process may have died before it did, or the object came back.
    await pLimit(CALLS_AT_A_TIME).map(ids, async (id) => await objects.remove(segmentKey(id)));
    await sql`delete from segments where id = any(${ids}) and deleted`;
    return rows.length === PAGE_SEGMENTS;
  }
}

/** Turns the rows of segments to which no row refers into tombstones, and returns their ids. */
async function bury(sql: Queryable, sources: SourceSegment[]): Promise<string[]> {
  const locked = await sql<{ id: string }[]>`
    select id from segments where id = any(${sources.map(({ id }) => id)}) and archived_at is not null and not deleted
    order by id for update`;
  const due = new Set(locked.map(({ id }) => id));
  const referred = await referredSegments(
    sql,
    sources.filter(({ id }) => due.has(id)),
  );
  const used = await usedByImages(sql, [...due]);
  const ids = [...due].filter((id) => !referred.has(id) && !used.has(id));
  if (ids.length > 0) await sql`update segments set deleted = true where id = any(${ids})`;
  return ids;
}

/** Returns those of the segments that have chunks of images. */
async function usedByImages(sql: Queryable, ids: string[]): Promise<Set<string>> {
  if (ids.length === 0) return new Set();
  const asked = arrayLiteral(ids);
  const rows = await sql<{ id: string }[]>`
    select unnest(chunk_segments) as id from image_contents
    where archive_id is null and chunk_segments && ${asked}::text::uuid[]
    union select unnest(chunk_segments) from images where chunk_segments && ${asked}::text::uuid[]`;
  return new Set(rows.map(({ id }) => id));
}
