import { type Queryable } from "../../platform/database/database.ts";
import { COLUMNS, type ImageRecord } from "../stored-segment.ts";

/** An image record; `recorded_in` is the id of the segment that contains the record. */
type FirstImage = ImageRecord & { recorded_in: string };

/**
 * Restores image records of previous versions into the table where those versions look for them.
 * There a name is one image: the first record wins, its uses are the sum of all. Returns the number
 * of new rows.
 */
export async function restoreUnhashed(
  sql: Queryable,
  segments: { id: string; images: ImageRecord[] }[],
  { newerGiveWay }: { newerGiveWay: boolean },
): Promise<number> {
  const records = firstImages(segments);
  if (records.size === 0) return 0;
  if (newerGiveWay)
    for (const { key, uses } of await removeNewer(sql, [...records.values()])) {
      const record = records.get(key);
      if (record !== undefined) record.uses += uses;
    }
  const rows = await sql<{ added: boolean }[]>`
    insert into images (project_id, ${sql.unsafe(COLUMNS.image)})
    select project_id, ${sql.unsafe(COLUMNS.image)} from jsonb_populate_recordset(null::images, ${JSON.stringify([...records.values()])}::text::jsonb)
    order by project_id, name
    on conflict (project_id, name) do update set uses = images.uses + excluded.uses
    returning xmax = 0 as added`;
  return rows.filter(({ added }) => added).length;
}

/** Keeps one record per name: one statement can update a row only once. */
function firstImages(segments: { id: string; images: ImageRecord[] }[]): Map<string, FirstImage> {
  const byName = new Map<string, FirstImage>();
  for (const { id, images } of segments)
    for (const row of images) {
      const key = `${row.project_id}/${row.name}`;
      const first = byName.get(key);
      // A chunk in the same segment as the image's record was written before the segment had an id.
      const chunks = row.chunk_segments.map((chunk) => chunk ?? id);
      if (first !== undefined) first.uses += row.uses;
      else byName.set(key, { ...row, chunk_segments: chunks, recorded_in: id });
    }
  return byName;
}

/**
 * Removes rows that are newer than a record. An image's record is never older than its last chunk,
 * so a row with a newer chunk is newer, too.
 */
async function removeNewer(sql: Queryable, records: FirstImage[]) {
  return await sql<{ key: string; uses: number }[]>`
    delete from images using jsonb_to_recordset(${JSON.stringify(records)}::text::jsonb)
      as record (project_id integer, name text, recorded_in uuid)
    where images.project_id = record.project_id and images.name = record.name
      and images.chunk_segments[cardinality(images.chunk_segments)] > record.recorded_in
    returning images.project_id || '/' || images.name as key, images.uses`;
}
