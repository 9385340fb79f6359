import { type Queryable } from "../../platform/database/database.ts";
import { type Archive } from "../piece.ts";

/** Size up to which archives are merged with others. */
const SMALL_BYTES = 128 * 2 ** 20;
/** Records of all inputs of a merge at most: the places of their pieces are held in memory. */
const RECORDS_MAX = 200_000;
const INPUTS_MAX = 256;
const INPUT_BYTES_MAX = 2 ** 30;
// Archives so small are merged whatever the sizes of the others.
const TINY_BYTES = 2 ** 20;
const TIMES_OTHERS_MAX = 4;
// Number of small archives of a day from which they are merged at once.
const MANY = 200;
const DAYS_PAGE = 100;

/** Archives that are merged with one another. */
export type Day = Pick<Archive, "projectId" | "day" | "kind">;
export type Small = { id: string; bytes: number; records: number };

/**
 * Chooses which small archives of a project, day and kind are merged: all up to the largest one of
 * at most four times the size of all smaller ones. So each merge makes any archive a quarter larger
 * at least, and none is written over and over for the sake of a few bytes.
 */
export function chooseInputs(small: Small[]): Small[] {
  const bySize = small.toSorted((a, b) => a.bytes - b.bytes || (a.id < b.id ? -1 : 1));
  let chosen = 0;
  let smallerBytes = 0;
  let allRecords = 0;
  for (const [nth, { bytes, records }] of bySize.slice(0, INPUTS_MAX).entries()) {
    allRecords += records;
    if (allRecords > RECORDS_MAX || smallerBytes + bytes > INPUT_BYTES_MAX) break;
    const joins = bytes < TINY_BYTES || bytes <= TIMES_OTHERS_MAX * smallerBytes;
    if (nth > 0 && joins) chosen = nth + 1;
    smallerBytes += bytes;
  }
  return bySize.slice(0, chosen);
}

/** Yields days with small archives that are many, or one of which is older than `everyS`. */
export async function* dueDays(
  sql: Queryable,
  everyS: number,
): AsyncGenerator<Day & { small: Small[] }> {
  let last: Day = { projectId: -1, day: "0001-01-01", kind: "images" };
  for (;;) {
    const page = await sql<(Day & { small: Small[] })[]>`
      select project_id as "projectId", archives.day::text, kind,
        json_agg(json_build_object('id', id, 'bytes', bytes, 'records', records)) as small
      from archives
      where (project_id, archives.day, kind) > (${last.projectId}, ${last.day}::text::date, ${last.kind})
        and bytes < ${SMALL_BYTES} and records <= ${RECORDS_MAX / 2} and ${isFree(sql)}
      group by project_id, archives.day, kind
      having count(*) >= 2 and (count(*) >= ${MANY} or min(created_at) <= now() - ${everyS} * interval '1 second')
      order by project_id, archives.day, kind limit ${DAYS_PAGE}`;
    yield* page;
    const next = page.at(-1);
    if (next === undefined || page.length < DAYS_PAGE) return;
    last = next;
  }
}

/** Returns an SQL condition on `archives`: nobody merges it, and it can be read. */
export function isFree(sql: Queryable) {
  return sql`(leased_until is null or leased_until < now())
    and not exists (select from unreadable_segments where segment_id = archives.id)`;
}
