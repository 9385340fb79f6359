import pLimit from "p-limit";

import { type Sql } from "../../platform/database/database.ts";
import { ObjectDamaged, ObjectMissing, type ObjectStore } from "../../platform/objects/objects.ts";
import { segmentIdOf, segmentKey } from "../segment.ts";
import { retryOutages } from "../../platform/database/retry-outages.ts";

const PAGE_ROWS = 1000;
const READS_AT_A_TIME = 16;

/**
 * Range of segment ids beyond `after` up to `last`, without the segments whose objects were just
 * listed.
 */
export type RowRange = { after: string; last: string; listed: string[] };

/**
 * Yields pages of keys of missing objects whose segments have rows that are not marked as deleted.
 */
export async function* missingObjects(
  { sql, objects }: { sql: Sql; objects: ObjectStore },
  { after, last, listed }: RowRange,
): AsyncGenerator<string[]> {
  const limit = pLimit(READS_AT_A_TIME);
  for (let from = after; ;) {
    const rows = await retryOutages(
      async () =>
        await sql<{ id: string }[]>`
          select id from segments
          where id > ${from} and id <= ${last} and not deleted and id <> all(${listed})
          order by id limit ${PAGE_ROWS}`,
    );
    const keys = rows.map(({ id }) => segmentKey(id));
    // Check each one again: it may have been stored, or deleted with a tombstone, since the list
    // was made.
    const gone = await limit.map(
      keys,
      async (key) => (await isGone(objects, key)) && (await isLive(sql, key)),
    );
    yield keys.filter((_key, nth) => gone[nth] === true);
    const end = rows.at(-1);
    if (end === undefined || rows.length < PAGE_ROWS) return;
    from = end.id;
  }
}

/** Returns whether the object's segment has a row that is not a tombstone. */
export async function isLive(sql: Sql, key: string): Promise<boolean> {
  const rows = await retryOutages(
    async () =>
      await sql`select 1 from segments where id = ${segmentIdOf(key) ?? null} and not deleted`,
  );
  return rows.length > 0;
}

/** Returns whether the store says that there is no such object. Throws while it is unavailable. */
export async function isGone(objects: ObjectStore, key: string): Promise<boolean> {
  try {
    await objects.read(key, 0, 1);
    return false;
  } catch (error) {
    if (error instanceof ObjectMissing) return true;
    if (error instanceof ObjectDamaged) return false;
    throw error;
  }
}
