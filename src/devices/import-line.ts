import { AppError } from "../platform/errors.ts";
import {
  type PropertyChange,
  CHANGES_MAX,
  checkSize,
  isRecord,
  longerThan,
  parseValue,
  wrongKey,
  wrongText,
} from "./properties.ts";

const LINE_LENGTH_MAX = 2 ** 20;
const EXTERNAL_ID_LENGTH_MAX = 255;
const PUSH_TOKEN_LENGTH_MAX = 4096;

/** A device to import. A property that is null is removed. */
export type Line = {
  externalId: string;
  pushToken: string;
  sendPlatform: number;
  devicePlatform: number;
  properties: Map<string, PropertyChange["value"]>;
};

/** Throws AppError that says what is wrong with the line. */
export function parseLine(text: string): Line {
  if (text.length > LINE_LENGTH_MAX)
    throw new AppError("invalid", `a line must have at most ${LINE_LENGTH_MAX} characters`);
  const line = parseJson(text);
  if (!isRecord(line)) throw new AppError("invalid", "must be an object");
  return {
    externalId: textOf(line, "external_id", 1, EXTERNAL_ID_LENGTH_MAX),
    pushToken: textOf(line, "push_token", 0, PUSH_TOKEN_LENGTH_MAX),
    sendPlatform: integerOf(line, "send_platform", 2),
    devicePlatform: integerOf(line, "device_platform", 3),
    properties: propertiesOf(line),
  };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new AppError("invalid", "not JSON", { cause });
  }
}

function textOf(line: Record<string, unknown>, name: string, min: number, max: number): string {
  const value = line[name];
  if (typeof value !== "string" || value.length < min || longerThan(value, max))
    throw new AppError("invalid", `${name} must be a string of ${min} to ${max} characters`);
  const wrong = wrongText(value);
  if (wrong !== undefined) throw new AppError("invalid", `${name} ${wrong}`);
  return value;
}

function integerOf(line: Record<string, unknown>, name: string, max: number): number {
  const value = line[name] ?? 0;
  if (
    typeof value === "number" &&
    Number.isInteger(value) &&
    value >= 0 &&
    value <= max &&
    line[name] !== null
  )
    return value;
  throw new AppError("invalid", `${name} must be a whole number from 0 to ${max}`);
}

function propertiesOf(line: Record<string, unknown>): Line["properties"] {
  const name = line["properties"] === undefined ? "device_properties" : "properties";
  if (name === "properties" && line["device_properties"] !== undefined)
    throw new AppError("invalid", "properties and device_properties are both given");
  const entries = entriesOf(line[name], name);
  if (entries.length > CHANGES_MAX)
    throw new AppError("invalid", `${name} must be at most ${CHANGES_MAX}`);
  const changes = entries.map(([key, value]) => {
    const wrong = wrongKey(key);
    if (wrong !== undefined)
      throw new AppError("invalid", `the key ${JSON.stringify(key)} of ${name} ${wrong}`);
    return { key, value: parseValue(value, `${name}.${key}`) };
  });
  checkSize(changes);
  return new Map(changes.map(({ key, value }) => [key, value]));
}

/** Of an object of properties, or of the list of single ones that the routes answer with. */
function entriesOf(given: unknown, name: string): [string, unknown][] {
  if (given === undefined) return [];
  if (name === "properties") {
    if (isRecord(given)) return Object.entries(given);
    throw new AppError("invalid", "properties must be an object");
  }
  if (!Array.isArray(given))
    throw new AppError("invalid", "device_properties must be a list of objects with one key each");
  return given.map((element: unknown, index) => {
    const [entry, more] = isRecord(element) ? Object.entries(element) : [];
    if (entry === undefined || more !== undefined)
      throw new AppError("invalid", `device_properties[${index}] must be an object with one key`);
    return entry;
  });
}
