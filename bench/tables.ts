import type postgres from "postgres";

// Another checkout's server may not have all of them.
const TABLES = [
  "batches",
  "images",
  "image_contents",
  "image_uses",
  "segments",
  "sessions",
  "presence_devices",
  "builds",
  "build_garbage",
];
const COUNTED = { batches: ["batches"], images: ["images", "image_contents"] };

/** How many batches or images PostgreSQL knows: what was acknowledged must be among them. */
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

/** What a measurement has left. */
export async function emptyTables(sql: postgres.Sql): Promise<void> {
  for (const table of await present(sql, TABLES)) await sql`truncate ${sql(table)}`;
}

async function present(sql: postgres.Sql, tables: string[]): Promise<string[]> {
  const rows = await sql<{ name: string }[]>`
    select name from unnest(${tables}::text[]) as name where to_regclass(name) is not null`;
  return rows.map(({ name }) => name);
}
