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

const flag = optional(typed<boolean>("boolean"), (value) => value ?? false);

/*
 * Bodies of requests to start a session. They are lenient where SDKs differ: numbers are rounded and
 * clamped, and null counts as absent.
 */

const COMMON = {
  projectID: number,
  projectKey: text(),
  trackerVersion: text(),
  revID: text(),
  token: text(),
  userUUID: text(),
  userID: text(),
  timezone: text(64),
  timestamp: number,
  deviceMemory: integer,
  width: integer,
  height: integer,
  doNotRecord: flag,
};

/** Body of a mobile SDK. */
export const MobileBody = new Input({
  ...COMMON,
  userOSVersion: text(),
  userDevice: text(),
  userDeviceType: optional(
    ruled<string | number>({ anyOf: [STRING, NUMBER] }, (value) =>
      typeof value === "number" ? undefined : STRING.problem(value),
    ),
    (value) => (typeof value === "string" ? cut(value, TEXT_MAX) : (value ?? undefined)),
  ),
  platform: text(),
  performance: t.Optional(readBy({ description: "any JSON" }, boundedJson)),
  performances: t.Optional(readBy({ description: "the same by another name" }, boundedJson)),
});

/** Body of the web tracker. */
export const WebBody = new Input({
  ...COMMON,
  /** Set if the page is shown live and not to be recorded. */
  assistOnly: flag,
  /** Set if the session of the token ends here. */
  reset: flag,
  /** Milliseconds that were recorded before the start. */
  bufferDiff: integer,
  /** Set if the whole session was recorded before the start, from `timestamp` on. */
  isOffline: flag,
});

/** Body of the analytics SDK. */
export const AnalyticsBody = new Input({
  projectKey: text(),
  sdk_version: text(),
  device_id: text(),
  user_id: text(),
  os: text(),
  os_version: text(),
  browser: text(),
  browser_version: text(),
  screen_width: integer,
  screen_height: integer,
  timezone: text(64),
});

/** Request of any SDK to start a session. */
export type StartRequest = Partial<
  ReturnType<typeof MobileBody.read> & ReturnType<typeof WebBody.read>
> & {
  userOS?: string | undefined;
  userBrowser?: string | undefined;
  userBrowserVersion?: string | undefined;
};

/*
 * Parsers of a start. Throw 400 if the value is not a JSON object or a field has the wrong type.
 */

export function parseMobileStart(value: unknown): StartRequest {
  return MobileBody.read(object(value));
}

export function parseWebStart(value: unknown): StartRequest {
  return WebBody.read(object(value));
}

/** The SDK nests its fields when it runs without the tracker. */
export function parseAnalyticsStart(value: unknown): StartRequest {
  const given = object(value);
  const { defaultFields } = given;
  const sent = AnalyticsBody.read(isRecord(defaultFields) ? { ...given, ...defaultFields } : given);
  return {
    projectKey: sent.projectKey,
    trackerVersion: sent.sdk_version,
    userUUID: sent.device_id,
    userID: sent.user_id,
    userOS: sent.os,
    userOSVersion: sent.os_version,
    userBrowser: sent.browser,
    userBrowserVersion: sent.browser_version,
    width: sent.screen_width,
    height: sent.screen_height,
    timezone: sent.timezone,
  };
}

function object(value: unknown): Record<string, unknown> {
  if (!isRecord(value)) throw new AppError("invalid", "the body is not a JSON object");
  return value;
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
