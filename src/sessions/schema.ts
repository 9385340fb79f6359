import { t } from "elysia";

import { AppError } from "../platform/errors.ts";
import { Input } from "../platform/input.ts";
import { isRecord } from "../platform/json.ts";
import { type Ruled, optional, readBy, ruled } from "../platform/schema.ts";
import { storableText } from "../platform/text.ts";

const INTEGER_MAX = 2 ** 31 - 1;
const TEXT_MAX = 255;
// Size limit of the stored performance data, far more than any SDK sends.
const PERFORMANCE_BYTES_MAX = 16 * 1024;
const PERFORMANCE_DEPTH_MAX = 100;

const STRING = typed<string>("string");
const NUMBER = typed<number>("number");

function typed<T>(type: string): Ruled<T> {
  return ruled<T>({ type }, (value) => (typeof value === type ? undefined : `is not a ${type}`));
}

const number = optional(NUMBER, (value) => value ?? undefined);
const integer = optional(NUMBER, (value) =>
  value === null ? undefined : Math.min(INTEGER_MAX, Math.max(0, Math.round(value))),
);

function text(max = TEXT_MAX) {
  return optional(STRING, (value) => (value === null ? undefined : cut(value, max)));
}

function cut(value: string, max: number): string {
  return storableText(value).slice(0, max);
}

/**
 * Body of a mobile SDK's request to start a session. It is lenient where SDKs differ: numbers are
 * rounded and clamped, and null counts as absent.
 */
export const StartBody = new Input({
  projectID: number,
  projectKey: text(),
  trackerVersion: text(),
  revID: text(),
  token: text(),
  userUUID: text(),
  userID: text(),
  userOSVersion: text(),
  userDevice: text(),
  userDeviceType: optional(
    ruled<string | number>({ anyOf: [STRING, NUMBER] }, (value) =>
      typeof value === "number" ? undefined : STRING.problem(value),
    ),
    (value) => (typeof value === "string" ? cut(value, TEXT_MAX) : (value ?? undefined)),
  ),
  platform: text(),
  timezone: text(64),
  timestamp: number,
  deviceMemory: integer,
  width: integer,
  height: integer,
  doNotRecord: optional(typed<boolean>("boolean"), (value) => value ?? false),
  performance: t.Optional(readBy({ description: "any JSON" }, boundedJson)),
  performances: t.Optional(readBy({ description: "the same by another name" }, boundedJson)),
});

export type StartRequest = ReturnType<typeof StartBody.read>;

/** Parses a start request. Throws 400 if it is not a JSON object or a field has the wrong type. */
export function parseStartRequest(value: unknown): StartRequest {
  if (!isRecord(value)) throw new AppError("invalid", "the body is not a JSON object");
  return StartBody.read(value);
}

/** Returns JSON text, or no text if the value is too long or too deep to be stored. */
function boundedJson(value: unknown): { text?: string } | undefined {
  if (value === null) return undefined;
  if (!isDepthWithin(value, PERFORMANCE_DEPTH_MAX)) return {};
  const json = JSON.stringify(value);
  return Buffer.byteLength(json) > PERFORMANCE_BYTES_MAX
    ? {}
    : { text: JSON.stringify(value, (_, one: unknown) => storableJson(one)) };
}

/** Makes the texts of one value storable, including its field names. */
function storableJson(value: unknown): unknown {
  if (typeof value === "string") return storableText(value);
  if (!isRecord(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [storableText(name), one]));
}

function isDepthWithin(value: unknown, depth: number): boolean {
  if (typeof value !== "object" || value === null) return true;
  return depth > 0 && Object.values(value).every((one) => isDepthWithin(one, depth - 1));
}
