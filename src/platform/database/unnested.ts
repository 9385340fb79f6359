import { type Queryable } from "./database.ts";

type Value = string | number | bigint | boolean | null | undefined | readonly Value[];
const SPECIAL = /["\\]/;
const SPECIALS = /["\\]/g;

/** SQL types of the elements, by column. */
type Types = Record<string, string>;

/**
 * Returns rows as the item `record` of a FROM list, one array for each column: PostgreSQL reads that
 * in half the time of JSON. Arrays within a column become array literals of type text.
 */
export function unnested<T extends Types>(
  sql: Queryable,
  rows: readonly Record<keyof T & string, Value>[],
  types: T,
) {
  const names: (keyof T & string)[] = Object.keys(types);
  const columns = names.map((name, index) => {
    const values = arrayLiteral(rows.map((row) => row[name]));
    return sql`${sql.unsafe(index === 0 ? "" : ",")} ${values}::text::${sql.unsafe(`${types[name]}[]`)}`;
  });
  return sql`unnest(${columns}) as record (${sql.unsafe(names.join())})`;
}

/** Returns an array as PostgreSQL writes it. */
export function arrayLiteral(values: Iterable<Value>): string {
  let elements = "";
  for (const value of values) elements += `${elements === "" ? "" : ","}${elementOf(value)}`;
  return `{${elements}}`;
}

function elementOf(value: Value): string {
  if (typeof value === "string") return quoted(value);
  if (value === null || value === undefined) return "NULL";
  return typeof value === "object" ? quoted(arrayLiteral(value)) : String(value);
}

function quoted(text: string): string {
  // Nearly no text has any, and a replacement takes longer even then.
  return `"${SPECIAL.test(text) ? text.replaceAll(SPECIALS, String.raw`\$&`) : text}"`;
}
