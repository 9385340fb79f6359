import { setTimeout } from "node:timers/promises";

import { type Clock } from "../platform/clock.ts";
import { type Queryable, type Sql } from "../platform/database/database.ts";
import { unavailable } from "../platform/errors.ts";
import { type Log } from "../platform/logger.ts";
import { warnRarely } from "../platform/rare-warnings.ts";
import { type ObjectStore } from "../platform/objects/objects.ts";
import { objectKey } from "./build.ts";

const SWEEP_MS = 2000;
const RENEW_MS = 10_000;
const LEASE_S = 60;
// Time for downloads of a replaced build to finish.
const REPLACED_S = 600;
const RETRY_S = 30;

export type GarbageDeps = { sql: Sql; objects: ObjectStore; clock: Clock; log: Log };

/** An object that is being uploaded. */
export type Upload = { objectId: string; signal: AbortSignal; [Symbol.dispose]: () => void };

/**
 * Keeps a list of objects that no build refers to, with the time at which each may be deleted. An
 * upload is in it from before its first byte until its build is committed, so that its object is
 * deleted even if the process dies.
 */
export class BuildGarbage {
  readonly #sql: Sql;
  readonly #objects: ObjectStore;
  readonly #clock: Clock;
  readonly #log: Log;

  constructor({ sql, objects, clock, log }: GarbageDeps) {
    this.#sql = sql;
    this.#objects = objects;
    this.#clock = clock;
    this.#log = log;
  }

  /**
   * Begins a new object, which is not deleted until it is disposed of. Its signal aborts if it was
   * deleted nevertheless.
   */
  async begin(): Promise<Upload> {
    // Uses the clock that all processes share, because the ids decide which build is newer.
    const objectId = Bun.randomUUIDv7("hex", this.#clock.epochMs());
    await this.#sql`
      insert into build_garbage (object_id, due_at) values (${objectId}, now() + ${LEASE_S} * interval '1 second')`;
    const swept = new AbortController();
    const renewing = setInterval(() => {
      this.#renew(objectId, swept).catch((error: unknown) =>
        this.#log.warn({ err: error }, "an upload's lease was not renewed"),
      );
    }, RENEW_MS);
    return {
      objectId,
      signal: swept.signal,
      [Symbol.dispose]: () => clearInterval(renewing),
    };
  }

  /** Deletes the object of a failed upload, unless its build was committed after all. */
  async discard(objectId: string): Promise<void> {
    try {
      await this.#sql.begin(async (transaction) => {
        // Waits for a commit whose answer was lost and that may still be in progress.
        await transaction`select 1 from build_garbage where object_id = ${objectId} for update`;
        // If the object was deleted already, bytes may have been written since: lists it again.
        await transaction`
          insert into build_garbage (object_id, due_at)
          select ${objectId}, now() where not exists (select 1 from builds where object_id = ${objectId})
          on conflict (object_id) do update set due_at = now()`;
      });
      await this.#removeOne(objectId);
    } catch (error) {
      this.#log.warn({ err: error, objectId }, "the object of a failed upload is deleted later");
    }
  }

  /** Deletes objects as they become due, until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        while (!signal.aborted && (await this.#removeOne()));
      } catch (error) {
        warnRarely(this.#log, { err: error }, "unused builds were not deleted");
      }
      await setTimeout(SWEEP_MS, undefined, { signal }).catch(() => undefined);
    }
  }

  /** Returns for how many seconds the oldest object has been due. */
  async overdueSeconds(): Promise<number> {
    const [row] = await this.#sql<[{ seconds: number }]>`
      select greatest(0, extract(epoch from now() - min(due_at)))::float8 as seconds from build_garbage`;
    return row.seconds;
  }

  async #renew(objectId: string, swept: AbortController): Promise<void> {
    const [held] = await this.#sql`
      update build_garbage set due_at = now() + ${LEASE_S} * interval '1 second' where object_id = ${objectId} returning 1`;
    if (held === undefined) swept.abort(unavailable("the upload paused for too long"));
  }

  /**
   * Deletes the next object that is due, or the wanted one; returns whether there was one. Holds
   * the lock on its row: a commit that would make it a build waits, and then finds no row.
   */
  async #removeOne(wanted?: string): Promise<boolean> {
    const sql = this.#sql;
    let objectId: string | undefined;
    try {
      await sql.begin(async (transaction) => {
        const which = wanted === undefined ? sql`` : sql`and object_id = ${wanted}`;
        const [due] = await transaction<{ objectId: string }[]>`
          select object_id as "objectId" from build_garbage
          where due_at <= now() and not exists (select 1 from builds where builds.object_id = build_garbage.object_id) ${which}
          order by due_at limit 1 for update skip locked`;
        if (due === undefined) return;
        ({ objectId } = due);
        await this.#objects.remove(objectKey(objectId));
        await transaction`delete from build_garbage where object_id = ${objectId}`;
      });
    } catch (error) {
      if (objectId === undefined) throw error;
      this.#log.warn({ err: error, objectId }, "an object was not removed");
      // Postpones it, so that it does not hold up the others.
      await sql`
        update build_garbage set due_at = now() + ${RETRY_S} * interval '1 second' where object_id = ${objectId}`;
    }
    return objectId !== undefined;
  }
}

/**
 * Takes an upload's object off the list, in the transaction that creates its build. Throws 503 if
 * it was deleted meanwhile.
 */
export async function keep(sql: Queryable, objectId: string): Promise<void> {
  const [held] = await sql`delete from build_garbage where object_id = ${objectId} returning 1`;
  if (held === undefined) throw unavailable("the upload paused for too long");
}

/** Adds the object of a replaced build to the list. */
export async function replaced(sql: Queryable, objectId: string): Promise<void> {
  await sql`
    insert into build_garbage (object_id, due_at) values (${objectId}, now() + ${REPLACED_S} * interval '1 second')`;
}
