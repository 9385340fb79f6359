import { type PendingQuery, type Row } from "postgres";

import { type Queryable } from "../platform/database/database.ts";
import { AppError } from "../platform/errors.ts";
import { isRecord } from "../platform/json.ts";
import { NO_NUL, readBy } from "../platform/schema.ts";
import { longerThan, wrongText } from "../platform/text.ts";

export const KEY_LENGTH_MAX = 255;
export const LIST_LENGTH_MAX = 1000;
export const CHANGES_MAX = 1000;
const NUMBER_MAX = Number.MAX_SAFE_INTEGER;
/** Limit of all properties of a device together, as JSON. */
export const PROPERTIES_BYTES_MAX = 65_536;

export type Scalar = string | number | boolean;
export type PropertyValue = Scalar | Scalar[];
/** Properties by key, as the database stores them. */
export type Properties = Record<string, PropertyValue>;
/** Sets a property, or removes it by null. */
export type PropertyChange = { key: string; value: PropertyValue | null };

/** Description of the key of a property for `/docs`. */
export const KEY = { type: "string", minLength: 1, maxLength: KEY_LENGTH_MAX, pattern: NO_NUL };

const SCALAR = {
  anyOf: [
    { type: "string", pattern: NO_NUL },
    { type: "number", minimum: -NUMBER_MAX, maximum: NUMBER_MAX },
    { type: "boolean" },
  ],
};
const VALUE = {
  nullable: true,
  anyOf: [...SCALAR.anyOf, { type: "array", maxItems: LIST_LENGTH_MAX, items: SCALAR }],
};

/** Describes and reads changes of properties. */
export const PROPERTIES = readBy(
  {
    type: "array",
    maxItems: CHANGES_MAX,
    items: { type: "object", required: ["key", "value"], properties: { key: KEY, value: VALUE } },
    description: `at most ${PROPERTIES_BYTES_MAX} bytes of JSON for all properties of a device`,
  },
  parseProperties,
);

/** Parses a `[{"key", "value"}]` list. Throws an AppError that names the first wrong element or key. */
export function parseProperties(list: unknown): PropertyChange[] {
  if (!Array.isArray(list)) throw new AppError("invalid", "properties must be a list");
  if (list.length > CHANGES_MAX)
    throw new AppError("invalid", `properties must be at most ${CHANGES_MAX}`);
  const changes = list.map((element: unknown, index) => parseChange(element, index));
  checkSize(changes);
  return changes;
}

function parseChange(element: unknown, index: number): PropertyChange {
  const at = `properties[${index}]`;
  if (!isRecord(element)) throw new AppError("invalid", `${at} must be an object`);
  for (const name of ["key", "value"])
    if (!Object.hasOwn(element, name)) throw new AppError("invalid", `${at}.${name} is missing`);
  const { key, value } = element;
  const wrong = wrongKey(key);
  if (wrong !== undefined) throw new AppError("invalid", `${at}.key ${wrong}`);
  return { key: String(key), value: parseValue(value, String(key)) };
}

/** Parses the value of a property; null removes it. Throws an AppError that names the key. */
export function parseValue(value: unknown, key: string): PropertyValue | null {
  if (value === null) return null;
  const at = `the value of ${JSON.stringify(key)}`;
  if (!Array.isArray(value)) return parseScalar(value, at);
  if (value.length > LIST_LENGTH_MAX)
    throw new AppError("invalid", `${at} must have at most ${LIST_LENGTH_MAX} elements`);
  return value.map((element: unknown, index) => parseScalar(element, `element ${index} of ${at}`));
}

function parseScalar(value: unknown, at: string): Scalar {
  if (typeof value === "boolean") return value;
  if (typeof value === "number") {
    // Larger numbers would lose digits.
    if (Math.abs(value) <= NUMBER_MAX) return value;
    throw new AppError("invalid", `${at} must be from -${NUMBER_MAX} to ${NUMBER_MAX}`);
  }
  if (typeof value !== "string")
    throw new AppError("invalid", `${at} must be a string, a number, a boolean or a list of them`);
  const wrong = wrongText(value);
  if (wrong !== undefined) throw new AppError("invalid", `${at} ${wrong}`);
  return value;
}

/** Throws an AppError if the changes alone exceed the limit of a device. */
export function checkSize(changes: PropertyChange[]): void {
  let bytes = 2;
  for (const { key, value } of changes)
    bytes += Buffer.byteLength(JSON.stringify(key)) + Buffer.byteLength(JSON.stringify(value)) + 4;
  if (bytes > PROPERTIES_BYTES_MAX) throw tooLarge();
}

/** Returns the problem of a property's key, if it has one. */
export function wrongKey(key: unknown): string | undefined {
  if (typeof key !== "string") return "must be a string";
  if (key === "") return "must not be empty";
  if (longerThan(key, KEY_LENGTH_MAX)) return `must have at most ${KEY_LENGTH_MAX} characters`;
  return wrongText(key);
}

/** Returns one object for each property, as the wire has them, by key in the order of code points. */
export function wireProperties(properties: Record<string, unknown>): Record<string, unknown>[] {
  return Object.entries(properties)
    .toSorted(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
    .map((property) => Object.fromEntries([property]));
}

/**
 * Applies all changes to one device in their order, or none. Returns its properties, or undefined if
 * there is no such device. Throws an AppError if they would become too large; a transaction of the
 * caller must then be rolled back.
 */
export async function applyProperties(
  sql: Queryable,
  deviceId: bigint | number,
  changes: PropertyChange[],
): Promise<Properties | undefined> {
  return "begin" in sql
    ? await sql.begin(async (tx) => await change(tx, deviceId, changes))
    : await change(sql, deviceId, changes);
}

async function change(sql: Queryable, deviceId: bigint | number, changes: PropertyChange[]) {
  // A statement of its own takes the lock, so that the next one sees the numbers of its previous holder.
  const [before] = await sql<{ properties: Properties }[]>`
    select properties from devices where id = ${deviceId} for no key update`;
  if (before === undefined || changes.length === 0) return before?.properties;
  const last = new Map(changes.map(({ key, value }) => [key, value]));
  const removed = [...last.keys()].filter((key) => last.get(key) === null);
  const set = [...last].filter(([, value]) => value !== null);
  const [after] = await sql<[{ properties: Properties; bytes: number }]>`
    update devices
    set properties = (properties - ${removed}::text[]) || ${JSON.stringify(Object.fromEntries(set))}::text::jsonb
    where id = ${deviceId}
    returning properties, octet_length(properties::text) as bytes`;
  if (after.bytes > PROPERTIES_BYTES_MAX) throw tooLarge();
  await replaceNumbers(
    sql,
    sql`(select id, properties from devices where id = ${deviceId}) as given`,
  );
  return after.properties;
}

type Source = PendingQuery<Row[]>;

/** Adds the numbers of devices that have none yet. `given` is a source of `id` and `properties`. */
export async function insertNumbers(sql: Queryable, given: Source): Promise<void> {
  await sql`insert into device_numbers ${numbersOf(sql, given)}`;
}

/** Replaces the numbers of devices. The caller has locked the devices by an earlier statement. */
export async function replaceNumbers(sql: Queryable, given: Source): Promise<void> {
  await sql`
    with numbers as materialized (${numbersOf(sql, given)}), stale as (
      delete from device_numbers old using ${given} where old.device_id = given.id and not exists (
        select from numbers n where n.device_id = old.device_id and n.key = old.key and n.value = old.value)
    )
    insert into device_numbers select * from numbers on conflict do nothing`;
}

/**
 * Selects each number of each property, and NaN for a list that may hold several. NaN finds devices
 * with one number above a bound and another one below, without a scan of all that have one above.
 */
function numbersOf(sql: Queryable, given: Source) {
  return sql`
    select id as device_id, key, number as value
    from ${given}, jsonb_each(properties) as property (key, value), lateral (
      select element::numeric from jsonb_path_query(value, '$[*] ? (@.type() == "number")') as element
      union select 'NaN' where value @@ '$.size() > 1 && exists ($[*] ? (@.type() == "number"))'
    ) as numbers (number)`;
}

export function tooLarge(): AppError {
  return new AppError(
    "invalid",
    `properties of a device must be at most ${PROPERTIES_BYTES_MAX} bytes of JSON`,
  );
}
