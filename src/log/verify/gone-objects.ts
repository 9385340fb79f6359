import { LRUCache } from "lru-cache";
import pLimit from "p-limit";

import { type ArchiveName, archiveKey } from "../../archives/archive-key.ts";
import { type Sql } from "../../platform/database/database.ts";
import { retryOutages } from "../../platform/database/retry-outages.ts";
import { type ObjectStore } from "../../platform/objects/objects.ts";
import { isGone } from "../recovery/missing-objects.ts";
import { segmentKey } from "../segment.ts";

const KNOWN_MAX = 100_000;
const READS_AT_A_TIME = 16;

/** Asks the store which objects are gone, and remembers the answers. */
abstract class GoneObjects {
  readonly #objects: ObjectStore;
  readonly #known = new LRUCache<string, boolean>({ max: KNOWN_MAX });
  readonly #limit = pLimit(READS_AT_A_TIME);

  constructor(objects: ObjectStore) {
    this.#objects = objects;
  }

  /** Returns those of the ids whose objects are gone. Throws while the store is unavailable. */
  async among(ids: Iterable<string>): Promise<Set<string>> {
    const asked = [...new Set(ids)];
    const keys = await this.keysOf(asked.filter((id) => !this.#known.has(id)));
    const gone = await this.#limit.map(asked, async (id) => {
      const key = keys.get(id);
      // Without a key it has no object.
      const answer =
        this.#known.get(id) ?? (key === undefined || (await isGone(this.#objects, key)));
      this.#known.set(id, answer);
      return answer;
    });
    return new Set(asked.filter((_id, nth) => gone[nth]));
  }

  protected abstract keysOf(ids: string[]): Promise<Map<string, string>>;
}

export class GoneSegments extends GoneObjects {
  protected override async keysOf(ids: string[]): Promise<Map<string, string>> {
    return await Promise.resolve(new Map(ids.map((id) => [id, segmentKey(id)])));
  }
}

/**
 * An archive without a row counts as gone: its row was taken out by a repair that was broken off
 * before the rows that name it.
 */
export class GoneArchives extends GoneObjects {
  readonly #sql: Sql;

  constructor({ sql, objects }: { sql: Sql; objects: ObjectStore }) {
    super(objects);
    this.#sql = sql;
  }

  protected override async keysOf(ids: string[]): Promise<Map<string, string>> {
    const names = await archiveNames(this.#sql, ids);
    return new Map(Array.from(names, ([id, name]) => [id, archiveKey(name)]));
  }
}

/** Returns the names of the archives with these ids that have rows. */
export async function archiveNames(
  sql: Sql,
  ids: Iterable<string>,
): Promise<Map<string, ArchiveName>> {
  const asked = [...new Set(ids)];
  if (asked.length === 0) return new Map();
  const rows = await retryOutages(
    async () =>
      await sql<ArchiveName[]>`
        select id, project_id as "projectId", day::text from archives where id = any(${asked}::uuid[])`,
  );
  return new Map(rows.map((name) => [name.id, name]));
}
