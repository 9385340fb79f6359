import { AppError } from "../platform/errors.ts";
import { isRecord } from "../platform/json.ts";
import { storableText } from "../platform/text.ts";

const INTEGER_MAX = 2 ** 31 - 1;
const TEXT_MAX = 255;
// Size limit of the stored performance data, far more than any SDK sends.
const PERFORMANCE_BYTES_MAX = 16 * 1024;
const PERFORMANCE_DEPTH_MAX = 100;

/** Request of a mobile SDK to start a session; unknown fields are ignored. */
export type StartRequest = {
  projectID: number | undefined;
  projectKey: string | undefined;
  trackerVersion: string | undefined;
  revID: string | undefined;
  token: string | undefined;
  userUUID: string | undefined;
  userID: string | undefined;
  userOSVersion: string | undefined;
  userDevice: string | undefined;
  userDeviceType: string | number | undefined;
  platform: string | undefined;
  timezone: string | undefined;
  timestamp: number | undefined;
  deviceMemory: number | undefined;
  width: number | undefined;
  height: number | undefined;
  doNotRecord: boolean;
  /** Performance data as JSON text. */
  performance: string | undefined;
  /** True if the performance data exceeded its limits and was dropped. */
  isPerformanceDropped: boolean;
};

/**
 * Parses a start request. It is lenient where SDKs differ: numbers are rounded and clamped, null
 * counts as absent. Throws 400 if the body is not a JSON object or a field has the wrong type.
 */
export function parseStartRequest(fields: unknown): StartRequest {
  if (!isRecord(fields)) throw new AppError("invalid", "the body is not a JSON object");
  const text = (name: string, max = TEXT_MAX) => {
    const value = optional(fields, name, "string");
    return value === undefined ? undefined : storableText(value).slice(0, max);
  };
  const integer = (name: string) => {
    const value = optional(fields, name, "number");
    return value === undefined ? undefined : Math.min(INTEGER_MAX, Math.max(0, Math.round(value)));
  };
  const deviceType = fields["userDeviceType"];
  const sent = fields["performances"] ?? fields["performance"] ?? undefined;
  const performance = sent === undefined ? undefined : boundedJson(sent);
  return {
    projectID: optional(fields, "projectID", "number"),
    projectKey: text("projectKey"),
    trackerVersion: text("trackerVersion"),
    revID: text("revID"),
    token: text("token"),
    userUUID: text("userUUID"),
    userID: text("userID"),
    userOSVersion: text("userOSVersion"),
    userDevice: text("userDevice"),
    userDeviceType: typeof deviceType === "number" ? deviceType : text("userDeviceType"),
    platform: text("platform"),
    timezone: text("timezone", 64),
    timestamp: optional(fields, "timestamp", "number"),
    deviceMemory: integer("deviceMemory"),
    width: integer("width"),
    height: integer("height"),
    doNotRecord: optional(fields, "doNotRecord", "boolean") ?? false,
    performance,
    isPerformanceDropped: sent !== undefined && performance === undefined,
  };
}

/** Returns undefined if the value is too long or too deep to be stored. */
function boundedJson(value: unknown): string | undefined {
  if (!isDepthWithin(value, PERFORMANCE_DEPTH_MAX)) return undefined;
  const text = JSON.stringify(value);
  return Buffer.byteLength(text) > PERFORMANCE_BYTES_MAX
    ? undefined
    : JSON.stringify(value, (_, one: unknown) => storableJson(one));
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

type Types = { string: string; number: number; boolean: boolean };

const CHECKS: { [Name in keyof Types]: (value: unknown) => value is Types[Name] } = {
  string: (value) => typeof value === "string",
  number: (value) => typeof value === "number",
  boolean: (value) => typeof value === "boolean",
};

function optional<Name extends keyof Types>(
  fields: Record<string, unknown>,
  name: string,
  type: Name,
): Types[Name] | undefined {
  const value = fields[name];
  if (value === undefined || value === null) return undefined;
  if (!CHECKS[type](value)) throw new AppError("invalid", `${name} is not a ${type}`);
  return value;
}
