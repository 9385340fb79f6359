import { AppError } from "../platform/errors.ts";
import { isRecord, jsonOf, recordOf } from "../platform/json.ts";
import { type PropertyChange, CHANGES_MAX, checkSize, parseValue, wrongKey } from "./properties.ts";
import { type DeviceInput, DeviceLine } from "./schema.ts";

/** A device to import. A property that is null is removed. */
export type Line = DeviceInput & { properties: Map<string, PropertyChange["value"]> };

/** Parses a line of an import. Throws an AppError that names the problem. */
export function parseLine(text: string): Line {
  const line = recordOf(jsonOf(text, "not JSON"), "it");
  return { ...DeviceLine.read(line), properties: propertiesOf(line) };
}

function propertiesOf({
  properties,
  device_properties: listed,
}: Record<string, unknown>): Line["properties"] {
  if (properties !== undefined && listed !== undefined)
    throw new AppError("invalid", "properties and device_properties are both given");
  const entries = listed === undefined ? entriesOf(properties) : listedEntries(listed);
  if (entries.length > CHANGES_MAX)
    throw new AppError("invalid", `properties must be at most ${CHANGES_MAX}`);
  const changes = entries.map(([key, value]) => {
    const wrong = wrongKey(key);
    if (wrong !== undefined)
      throw new AppError("invalid", `the key ${JSON.stringify(key)} of properties ${wrong}`);
    return { key, value: parseValue(value, key) };
  });
  checkSize(changes);
  return new Map(changes.map(({ key, value }) => [key, value]));
}

function entriesOf(given: unknown): [string, unknown][] {
  if (given === undefined) return [];
  if (isRecord(given)) return Object.entries(given);
  throw new AppError("invalid", "properties must be an object");
}

/** Reads a list of objects with one property each, as the routes answer. */
function listedEntries(given: unknown): [string, unknown][] {
  if (!Array.isArray(given))
    throw new AppError("invalid", "device_properties must be a list of objects with one key each");
  return given.map((element: unknown, index) => {
    const [entry, more] = isRecord(element) ? Object.entries(element) : [];
    if (entry === undefined || more !== undefined)
      throw new AppError("invalid", `device_properties[${index}] must be an object with one key`);
    return entry;
  });
}
