import type postgres from "postgres";

// An older checkout's server may not have all of these tables.
const TABLES = [
  "batches",
  "images",
  "image_contents",
  "image_uses",
  "segments",
  "archives",
  "session_pieces",
  "object_garbage",
  "sessions",
  "presence_devices",
  "builds",
  "build_garbage",
];
const COUNTED = { batches: ["batches"], images: ["images", "image_contents"] };

/** Counts batches or images in PostgreSQL; every acknowledged one must be among them. */
export async function countRows(sql: postgres.Sql, what: keyof typeof COUNTED): Promise<number> {
  let rows = 0;
  for (const table of await present(sql, COUNTED[what])) {
    const [row] = await sql<
      [{ rows: number }]
    >`select count(*)::integer as rows from ${sql(table)}`;
    rows += row.rows;
  }
  return rows;
}

/** Deletes the rows that a measurement left behind. */
export async function emptyTables(sql: postgres.Sql): Promise<void> {
  for (const table of await present(sql, TABLES)) await sql`truncate ${sql(table)}`;
}

async function present(sql: postgres.Sql, tables: string[]): Promise<string[]> {
  const rows = await sql<{ name: string }[]>`
    select name from unnest(${tables}::text[]) as name where to_regclass(name) is not null`;
  return rows.map(({ name }) => name);
}
