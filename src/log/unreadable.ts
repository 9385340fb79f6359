import type postgres from "postgres";

import { type Queryable } from "../platform/database/database.ts";

/**
 * Rule for choosing between two readable copies: the existing one stays, or the earlier one wins. A
 * copy in an unreadable segment gives way to a readable one.
 */
export type Precedence = "stays" | "earlier";

type Fragment = postgres.PendingQuery<postgres.Row[]>;

/** Marks segments whose objects were found missing or damaged. */
export async function markUnreadable(sql: Queryable, ids: string[]): Promise<void> {
  if (ids.length === 0) return;
  await sql`
    insert into unreadable_segments (segment_id) select unnest(${ids}::uuid[]) as id order by id
    on conflict (segment_id) do nothing`;
}

/**
 * Marks those of the segments that have no row. Call it once all segments that are older than the
 * referring ones have been restored.
 */
export async function markAbsent(sql: Queryable, ids: Set<string>): Promise<void> {
  if (ids.size === 0) return;
  await sql`
    insert into unreadable_segments (segment_id)
    select id from unnest(${[...ids]}::uuid[]) as id
    where not exists (select from segments where segments.id = id.id and not deleted)
    order by id
    on conflict (segment_id) do nothing`;
}

/** Removes the mark of a segment whose object was verified. */
export async function markReadable(sql: Queryable, id: string): Promise<void> {
  await sql`delete from unreadable_segments where segment_id = ${id}`;
}

/** Returns those of the segments that are marked. */
export async function unreadableOf(sql: Queryable, ids: Iterable<string>): Promise<Set<string>> {
  const rows = await sql<{ id: string }[]>`
    select segment_id as id from unreadable_segments where segment_id = any(${[...ids]}::uuid[])`;
  return new Set(rows.map(({ id }) => id));
}

/** Returns an SQL condition that is true if a segment in the array of ids is unreadable. */
export function anyUnreadable(sql: Queryable, segments: Fragment): Fragment {
  return sql`exists (select from unreadable_segments where segment_id = any(${segments}))`;
}

/** Returns the `on conflict` action for a batch that has another copy in `batches`. */
export function replaceBatch(sql: Queryable, precedence: Precedence) {
  const rank = (copy: "excluded" | "batches") => {
    const lost = anyUnreadable(sql, sql`array[${sql(copy)}.segment_id]`);
    return precedence === "stays"
      ? sql`(${lost})`
      : sql`(${lost}, ${sql(copy)}.segment_id, ${sql(copy)}."offset")`;
  };
  return sql`do update set (segment_id, "offset", length, flags, received_at) =
      (excluded.segment_id, excluded."offset", excluded.length, excluded.flags, excluded.received_at)
    where ${rank("excluded")} < ${rank("batches")}`;
}

/**
 * Returns the `on conflict` assignment that decides where an image's bytes are read from: from the
 * row `known` or from the new one.
 */
export function replaceChunks(sql: Queryable, precedence: Precedence) {
  return sql`(chunk_segments, chunk_offsets, chunk_lengths) = (
      select chunk_segments, chunk_offsets, chunk_lengths from (values
        (1, known.stored_at, known.chunk_segments, known.chunk_offsets, known.chunk_lengths),
        (2, excluded.stored_at, excluded.chunk_segments, excluded.chunk_offsets, excluded.chunk_lengths)
      ) as copy (nth, stored_at, chunk_segments, chunk_offsets, chunk_lengths)
      order by ${anyUnreadable(sql, sql`copy.chunk_segments`)}, ${precedence === "stays" ? sql`nth` : sql`stored_at, nth`} limit 1)`;
}
