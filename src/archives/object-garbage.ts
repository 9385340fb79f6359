import { setTimeout } from "node:timers/promises";

import pLimit from "p-limit";

import { isGone } from "../log/recovery/missing-objects.ts";
import { SegmentError } from "../log/record.ts";
import { segmentKey } from "../log/segment.ts";
import { readEndOf } from "../log/stored-segment.ts";
import { type Queryable, type Sql } from "../platform/database/database.ts";
import { type Log } from "../platform/logger.ts";
import { ObjectDamaged, ObjectMissing, type ObjectStore } from "../platform/objects/objects.ts";
import { warnRarely } from "../platform/rare-warnings.ts";
import { type ArchiveName, archiveKey, archiveNameOf } from "./archive-key.ts";

const SWEEP_MS = 2000;
const RENEW_MS = 10_000;
const LEASE_S = 60;
const RETRY_S = 30;
// Time until an object that is kept is looked at again.
const KEPT_S = 3600;
// Time for which others may name a removed object as their source.
const REMEMBERED_S = 30 * 86_400;
const READS_AT_A_TIME = 16;

export type ObjectGarbageDeps = { sql: Sql; objects: ObjectStore; log: Log };

/** Objects that are being written. Its signal aborts if one of them was deleted nevertheless. */
export type HeldObjects = { signal: AbortSignal } & Disposable;

type Due = { key: string; replacedBy: string[] | null; removed: boolean };

/** Thrown if an object was deleted while it was being written. */
export class Swept extends Error {
  override readonly name = "Swept";
}

/**
 * Keeps a list of archives that have no row, with the time at which each may be deleted. An archive
 * is in it from before its first byte until its row is committed, and again once others have
 * replaced it. The database may have lost rows itself, so an archive that was written is deleted
 * only while all that it was made of is still there, and a replaced one only while another that has
 * all of it has a row.
 */
export class ObjectGarbage {
  readonly #sql: Sql;
  readonly #objects: ObjectStore;
  readonly #log: Log;
  readonly #everyMs: number;

  constructor({ sql, objects, log }: ObjectGarbageDeps, { everyMs = SWEEP_MS } = {}) {
    this.#sql = sql;
    this.#objects = objects;
    this.#log = log;
    this.#everyMs = everyMs;
  }

  /** Begins new objects, which are not deleted until they are disposed of. */
  async begin(keys: string[]): Promise<HeldObjects> {
    const swept = new AbortController();
    if (keys.length === 0) return { signal: swept.signal, [Symbol.dispose]: () => undefined };
    await this.#sql`
      insert into object_garbage (key, due_at)
      select key, now() + ${LEASE_S} * interval '1 second' from unnest(${keys}::text[]) as key order by key`;
    const renewing = setInterval(() => {
      this.#renew(keys, swept).catch((error: unknown) =>
        this.#log.warn({ err: error }, "the lease of new objects was not renewed"),
      );
    }, RENEW_MS);
    return { signal: swept.signal, [Symbol.dispose]: () => clearInterval(renewing) };
  }

  /** Deletes the objects of a failed step, unless their rows were committed after all. */
  async discard(keys: string[]): Promise<void> {
    if (keys.length === 0) return;
    const ids = keys.map(idOf);
    try {
      await this.#sql.begin(async (transaction) => {
        // Waits for a commit whose answer was lost and that may still be in progress.
        await transaction`
          select 1 from object_garbage where key = any(${keys}) order by key for update`;
        // If an object was deleted already, bytes may have been written since: lists it again.
        await transaction`
          insert into object_garbage (key, due_at)
          select key, now() from unnest(${keys}::text[], ${ids}::uuid[]) as new (key, archive_id)
          where not exists (select from archives where id = archive_id) order by key
          on conflict (key) do update set due_at = now()`;
      });
      for (const key of keys) await this.#removeOne(key);
    } catch (error) {
      this.#log.warn({ err: error, keys }, "the objects of a failed step are deleted later");
    }
  }

  /** Deletes objects as they become due, until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        while (!signal.aborted && (await this.#removeOne()));
      } catch (error) {
        warnRarely(this.#log, { err: error }, "replaced objects were not deleted");
      }
      await setTimeout(this.#everyMs, undefined, { signal }).catch(() => undefined);
    }
  }

  /** Returns for how many seconds the oldest object has been due. */
  async overdueSeconds(): Promise<number> {
    const [row] = await this.#sql<[{ seconds: number }]>`
      select greatest(0, extract(epoch from now() - min(due_at)))::float8 as seconds from object_garbage`;
    return row.seconds;
  }

  /** Returns the number of objects that are kept because they may be the only copy of something. */
  async kept(): Promise<number> {
    const [row] = await this.#sql<[{ count: number }]>`
      select count(*)::integer as count from object_garbage where kept`;
    return row.count;
  }

  async #renew(keys: string[], swept: AbortController): Promise<void> {
    const { count } = await this.#sql`
      with held as materialized (
        select key from object_garbage where key = any(${keys}) and replaced_by is null order by key for update
      )
      update object_garbage set due_at = now() + ${LEASE_S} * interval '1 second' from held where object_garbage.key = held.key`;
    if (count < keys.length) swept.abort(new Swept("the writing of an object paused for too long"));
  }

  /**
   * Deletes the next object that is due, or the wanted one; returns whether there was one. Holds
   * the lock on its row: a commit that would give it a row waits, and then finds no entry.
   */
  async #removeOne(wanted?: string): Promise<boolean> {
    const sql = this.#sql;
    let key: string | undefined;
    try {
      await sql.begin(async (transaction) => {
        const which = wanted === undefined ? sql`` : sql`and key = ${wanted}`;
        const [due] = await transaction<Due[]>`
          select key, replaced_by as "replacedBy", removed from object_garbage
          where due_at <= now() ${which} order by due_at limit 1 for update skip locked`;
        if (due === undefined) return;
        ({ key } = due);
        await this.#settle(transaction, due);
      });
    } catch (error) {
      if (key === undefined) throw error;
      warnRarely(this.#log, { err: error, key }, "an object was not removed");
      // Postpones it, so that it does not hold up the others.
      await sql`
        update object_garbage set due_at = now() + ${RETRY_S} * interval '1 second' where key = ${key}`;
    }
    return key !== undefined;
  }

  async #settle(sql: Queryable, { key, replacedBy, removed }: Due): Promise<void> {
    const [live] = await sql`select 1 from archives where id = ${idOf(key)}`;
    if (live === undefined && !removed) {
      const isCopy =
        replacedBy === null ? await this.#isMadeOfKnown(sql, key) : await isKept(sql, replacedBy);
      if (!isCopy) {
        this.#log.error({ key, replacedBy }, "an archive is kept: it may be the only copy");
        await sql`
          update object_garbage set kept = true, due_at = now() + ${KEPT_S} * interval '1 second' where key = ${key}`;
        return;
      }
      await this.#objects.remove(key);
      if (replacedBy !== null) {
        await sql`
          update object_garbage set removed = true, kept = false, due_at = now() + ${REMEMBERED_S} * interval '1 second'
          where key = ${key}`;
        return;
      }
    }
    await sql`delete from object_garbage where key = ${key}`;
  }

  /** Returns whether all that the object was made of is still there, or there is no such object. */
  async #isMadeOfKnown(sql: Queryable, key: string): Promise<boolean> {
    const name = archiveNameOf(key);
    const bytes = await sizeOf(this.#objects, key);
    if (bytes === undefined) return true;
    if (name === undefined) return false;
    try {
      const { footer } = await readEndOf(this.#objects, { key, bytes });
      const { entries, sources } = footer;
      const hasImages = entries.some(({ kind }) => kind === "content");
      return sources !== undefined && (await this.#areThere(sql, sources, { ...name, hasImages }));
    } catch (error) {
      if (error instanceof ObjectMissing) return true;
      if (error instanceof SegmentError || error instanceof ObjectDamaged) return false;
      throw error;
    }
  }

  /**
   * Returns whether each source has a row and an object, or is known to have been archived or
   * merged into others. An archived segment may still have the only copy of an image.
   */
  async #areThere(
    sql: Queryable,
    sources: string[],
    { hasImages, ...name }: ArchiveName & { hasImages: boolean },
  ): Promise<boolean> {
    const keys = sources.map((id) => archiveKey({ ...name, id }));
    const rows = await sql<{ id: string; isSettled: boolean; isArchive: boolean }[]>`
      select id, archived_at is not null and not ${hasImages} as "isSettled", false as "isArchive" from segments
      where id = any(${sources}) and (archived_at is not null and not ${hasImages} or not deleted)
      union all select id, false, true from archives where id = any(${sources})
      union all select archive_id, true, true from object_garbage
        join unnest(${keys}::text[], ${sources}::uuid[]) as source (key, archive_id) using (key)
        where replaced_by = '{}' or exists (select from archives where archives.id = any(replaced_by))`;
    if (new Set(rows.map(({ id }) => id)).size < new Set(sources).size) return false;
    const limit = pLimit(READS_AT_A_TIME);
    const asked = rows.filter(({ isSettled }) => !isSettled);
    const gone = await limit.map(asked, async ({ id, isArchive }) => {
      const key = isArchive ? archiveKey({ ...name, id }) : segmentKey(id);
      return await isGone(this.#objects, key);
    });
    return !gone.includes(true);
  }
}

/**
 * Takes written objects off the list, in the transaction that inserts their rows. Throws Swept if
 * one of them was deleted meanwhile.
 */
export async function keepObjects(sql: Queryable, keys: string[]): Promise<void> {
  if (keys.length === 0) return;
  const { count } = await sql`
    with held as materialized (
      select key from object_garbage where key = any(${keys}) and replaced_by is null order by key for update
    )
    delete from object_garbage using held where object_garbage.key = held.key`;
  if (count !== keys.length) throw new Swept("the writing of an object paused for too long");
}

/**
 * Adds objects that were replaced to the list, in the transaction that deletes their rows. `by`: ids
 * of the archives that have all that they had; none if nothing of it is needed any more.
 */
export async function replaceObjects(
  sql: Queryable,
  keys: string[],
  by: string[],
  graceS: number,
): Promise<void> {
  const ids = keys.map(idOf);
  // Everything that these had replaced is in the same archives now.
  await sql`
    update object_garbage set replaced_by = array(
      select unnest(replaced_by) except select unnest(${ids}::uuid[]) union select unnest(${by}::uuid[]))
    where replaced_by && ${ids}::uuid[]`;
  await sql`
    insert into object_garbage (key, due_at, replaced_by)
    select key, now() + ${graceS} * interval '1 second', ${by}::uuid[] from unnest(${keys}::text[]) as key order by key`;
}

async function isKept(sql: Queryable, replacedBy: string[]): Promise<boolean> {
  if (replacedBy.length === 0) return true;
  const [row] = await sql`select 1 from archives where id = any(${replacedBy}) limit 1`;
  return row !== undefined;
}

async function sizeOf(objects: ObjectStore, key: string): Promise<number | undefined> {
  for await (const listed of objects.list(key)) if (listed.key === key) return listed.bytes;
  return undefined;
}

function idOf(key: string): string {
  const name = archiveNameOf(key);
  if (name === undefined) throw new Error(`${key} is not the key of an archive`);
  return name.id;
}
