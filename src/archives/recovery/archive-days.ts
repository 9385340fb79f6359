import { type Listed } from "../../log/stored-segment.ts";
import { type Sql } from "../../platform/database/database.ts";
import { retryOutages } from "../../platform/database/retry-outages.ts";
import { type ObjectStore } from "../../platform/objects/objects.ts";
import { type ArchiveName, archiveNameOf } from "../archive-key.ts";

/** Archives of a project and a day that the store lists. */
export type Day = Pick<ArchiveName, "projectId" | "day"> & { listed: (Listed & ArchiveName)[] };
export type Found = Listed &
  ArchiveName & {
    /** True if the archive has a row. */
    known: boolean;
    unreadable: boolean;
    /** True if it is in the list of objects to delete; by which archives it was replaced. */
    listed: boolean;
    replacedBy: string[] | null;
  };

/**
 * Yields the days of which the store has archives, and then those of which only rows are left. Calls
 * `onForeign` with the keys of objects that are not archives.
 */
export async function* archiveDays(
  { sql, objects }: { sql: Sql; objects: ObjectStore },
  onForeign: (key: string) => void,
): AsyncGenerator<Day> {
  const rows = await retryOutages(
    async () =>
      await sql<Omit<Day, "listed">[]>`
        select distinct project_id as "projectId", day::text from archives`,
  );
  const unseen = new Map(rows.map((row) => [nameOf(row), row]));
  let day: Day | undefined;
  for await (const listed of objects.list("archives/")) {
    const name = archiveNameOf(listed.key);
    if (name === undefined) onForeign(listed.key);
    else if (day !== undefined && nameOf(day) === nameOf(name))
      day.listed.push({ ...listed, ...name });
    else {
      if (day !== undefined) yield day;
      day = { projectId: name.projectId, day: name.day, listed: [{ ...listed, ...name }] };
      unseen.delete(nameOf(name));
    }
  }
  if (day !== undefined) yield day;
  for (const row of unseen.values()) yield { ...row, listed: [] };
}

/** Returns what is known of the objects of a day, and its rows of which no object was listed. */
export async function selectDay(
  sql: Sql,
  { projectId, day, listed }: Day,
): Promise<{ found: Found[]; gone: ArchiveName[] }> {
  const ids = listed.map(({ id }) => id);
  const rows = await sql<(Omit<Found, keyof Listed | keyof ArchiveName> & { id: string })[]>`
    select named.id, archives.id is not null as known, segment_id is not null as unreadable,
      object_garbage.key is not null as listed, replaced_by as "replacedBy"
    from unnest(${ids}::uuid[], ${listed.map(({ key }) => key)}::text[]) as named (id, key)
    left join archives on archives.id = named.id
    left join object_garbage on object_garbage.key = named.key
    left join unreadable_segments on segment_id = named.id`;
  const known = new Map(rows.map((row) => [row.id, row]));
  const gone = await sql<{ id: string }[]>`
    select id from archives where project_id = ${projectId} and day = ${day} and id <> all(${ids}) order by id`;
  const unknown = { known: false, unreadable: false, listed: false, replacedBy: null };
  return {
    found: listed.map((one) => ({ ...unknown, ...known.get(one.id), ...one })),
    gone: gone.map(({ id }) => ({ id, projectId, day })),
  };
}

function nameOf({ projectId, day }: Omit<Day, "listed">): string {
  return `${projectId}/${day}`;
}
