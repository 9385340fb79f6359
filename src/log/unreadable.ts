import type postgres from "postgres";

import { type Queryable } from "../platform/database/database.ts";

/**
 * Rule for choosing between two readable copies: the existing one stays, or the earlier one wins. A
 * copy in an unreadable segment gives way to a readable one.
 */
export type Precedence = "stays" | "earlier";

type Fragment = postgres.PendingQuery<postgres.Row[]>;

/** Marks segments and archives whose objects were found missing or damaged. */
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

/** Returns an SQL condition that is true if a segment or archive in the array of ids is unreadable. */
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

/** Columns of `image_contents` with the place of the bytes, which is always copied as a whole. */
export const PLACE =
  "chunk_segments, chunk_offsets, chunk_lengths, archive_id, archive_offset, archive_length";

/**
 * Returns the `on conflict` assignment that decides where an image's bytes are read from: from the
 * row `known` or from the new one. An archive is where the bytes go in the end.
 */
export function replacePlace(sql: Queryable, precedence: Precedence) {
  const columns = sql.unsafe(PLACE);
  const of = (row: "excluded" | "known") => sql.unsafe(PLACE.replaceAll(/\w+/g, `${row}.$&`));
  return sql`(${columns}) = (
      select ${columns} from (values (1, known.stored_at, ${of("known")}), (2, excluded.stored_at, ${of("excluded")}))
        as copy (nth, stored_at, ${columns})
      order by ${anyUnreadable(sql, sql`chunk_segments || archive_id`)}, archive_id is null,
        ${precedence === "stays" ? sql`nth` : sql`stored_at, nth`} limit 1)`;
}
