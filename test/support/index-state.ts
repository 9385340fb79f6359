import { type Sql } from "../../src/platform/database/database.ts";
import { type ObjectStore } from "../../src/platform/objects/objects.ts";
import { segmentKey } from "../../src/log/segment.ts";

/** Contents of PostgreSQL and of the object store, for comparison. */
export type IndexState = {
  batches: number;
  /** number of different (session, hash) pairs; fewer than `batches` means duplicates */
  distinct: number;
  segments: number;
  /** objects that no segment row names */
  orphans: string[];
  /** segment rows without their object */
  missing: string[];
};

export async function indexState(sql: Sql, objects: ObjectStore): Promise<IndexState> {
  const [counts] = await sql<[{ batches: number; distinct: number }]>`
    select count(*)::integer as batches, count(distinct (session_id, hash))::integer as distinct from batches`;
  const rows = await sql<{ id: string }[]>`select id from segments where not deleted`;
  const indexed = new Set(rows.map(({ id }) => segmentKey(id)));
  const listed = (await Array.fromAsync(objects.list("segments/"))).map(({ key }) => key);
  const stored = new Set(listed);
  return {
    ...counts,
    segments: rows.length,
    orphans: listed.filter((key) => !indexed.has(key)),
    missing: [...indexed].filter((key) => !stored.has(key)),
  };
}
