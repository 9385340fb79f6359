import { type Sql } from "../../src/platform/database/database.ts";

/** Returns a line of an import file. */
export function line(externalId: string, properties: object = {}, more: object = {}) {
  return { external_id: externalId, push_token: `token of ${externalId}`, properties, ...more };
}

/** Reads the row of a device. */
export async function device(sql: Sql, externalId: string) {
  const [row] = await sql`select * from devices where external_id = ${externalId}`;
  return row;
}

/** Lists the numbers of a device that range conditions find, each with its key. */
export async function numbers(sql: Sql, externalId: string): Promise<string[]> {
  const rows = await sql<{ row: string }[]>`
    select key || ' ' || value as row from device_numbers join devices on id = device_id
    where external_id = ${externalId} order by key, value`;
  return rows.map(({ row }) => row);
}
