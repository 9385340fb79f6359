import { type Sql } from "../../platform/database/database.ts";
import { type ObjectStore } from "../../platform/objects/objects.ts";
import { inPages } from "../../platform/streams.ts";
import { isGone } from "./missing-objects.ts";

const PAGE_OBJECTS = 1000;
const ID = /[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/**
 * Yields the keys of archives that have neither a row nor an entry in the list of objects to delete:
 * the database was emptied, or restored to a time before them.
 */
export async function* unknownArchives({
  sql,
  objects,
}: {
  sql: Sql;
  objects: ObjectStore;
}): AsyncGenerator<string> {
  for await (const page of inPages(objects.list("archives/"), PAGE_OBJECTS)) {
    const keys = page.map(({ key }) => key);
    const ids = keys.map((key) => ID.exec(key)?.[0] ?? null);
    const rows = await sql<{ key: string }[]>`
      select key from unnest(${keys}::text[], ${ids}::uuid[]) as listed (key, archive_id)
      where not exists (select from archives where id = archive_id)
        and not exists (select from object_garbage where object_garbage.key = listed.key)
      order by key`;
    // It may have been deleted since the list was made.
    for (const { key } of rows) if (!(await isGone(objects, key))) yield key;
  }
}
