import { AppError } from "../platform/errors.ts";
import { paging } from "../platform/envelope.ts";
import { Fields } from "../platform/fields.ts";
import { ordering } from "../platform/ordering.ts";
import { type DeviceEventName, STATUS, type Status } from "./enums.ts";

const EVENT_NAMES: DeviceEventName[] = [
  "targeted",
  "sent",
  "failed",
  "invalid_token",
  "undeliverable",
];
const EVENTS_ORDER = { created_at: "e.created_at", id: "e.id" };

const TITLE_MAX = 255;
const BODY_MAX = 4096;
const URL_MAX = 2048;
const ID_MAX = Number.MAX_SAFE_INTEGER;
const DEVICE_IDS_MAX = 100_000;
const INCREASE_MAX = 2 ** 31 - 1;
const ISO =
  /^(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?))?\s*(z|[+-]\d{2}(?::?\d{2})?)?$/i;
// What says itself which zone it is in: by a name, or an offset behind a time.
const ZONED = /(?:\b(?:gmt|utc|z|[ecmp][sd]t)|:\d{2}\s*(?:gmt|utc)?[+-]\d{2}:?\d{2})\)?$/i;

export type NewNotification = {
  title: string;
  body: string;
  imageUrl: string | undefined;
  iconUrl: string | undefined;
  deepLink: string | undefined;
  conditions: unknown;
  scheduledAt: Date;
};

/** A draft from outside; its conditions are not yet looked at. Throws 400. */
export function parseNotification(value: unknown, now: Date): NewNotification {
  const fields = new Fields(value);
  return {
    title: fields.text("title", 0, TITLE_MAX),
    body: fields.text("body", 0, BODY_MAX),
    imageUrl: fields.optionalText("image_url", URL_MAX),
    iconUrl: fields.optionalText("icon_url", URL_MAX),
    deepLink: fields.optionalText("deep_link", URL_MAX),
    // Absent must not be every device: nobody broadcasts by accident.
    conditions: fields.get("conditions") ?? null,
    scheduledAt: parseSchedule(fields.get("scheduled_at") ?? "", now),
  };
}

export function parseStatus(value: unknown): Status {
  const status = Object.values(STATUS).find((known) => known === value);
  if (status === undefined) throw new AppError("invalid", "status must be a number from 0 to 5");
  return status;
}

/** What an external worker logs. */
export function parseLog(value: unknown): { deviceIds: number[]; notificationId: number } {
  const fields = new Fields(value);
  if (fields.get("device_ids") === undefined)
    throw new AppError("invalid", "device_ids is missing");
  const deviceIds = fields.list("device_ids", DEVICE_IDS_MAX).map((id) => {
    if (typeof id !== "number" || !Number.isSafeInteger(id))
      throw new AppError("invalid", "device_ids must be whole numbers");
    return id;
  });
  return { deviceIds, notificationId: fields.integer("notification_id", 0, ID_MAX) };
}

/** What an external worker has sent. */
export function parseIncrease(value: unknown): { ios: number; android: number } {
  const fields = new Fields(value);
  return {
    ios: fields.integer("ios", 0, INCREASE_MAX),
    android: fields.integer("android", 0, INCREASE_MAX),
  };
}

/** ISO 8601, or free-form text as `Date` reads it; without a zone it is UTC. Empty is now. */
function parseSchedule(value: unknown, now: Date): Date {
  if (typeof value !== "string")
    throw new AppError("invalid", "scheduled_at must be a date as text");
  const text = value.trim();
  if (text === "") return now;
  const date = readIso(text) ?? readFreely(text);
  if (Number.isNaN(date.getTime()) || date.getUTCFullYear() > 9999)
    throw new AppError("invalid", "scheduled_at is no date");
  if (date < now) throw new AppError("invalid", "scheduled_at should later than current time");
  return date;
}

/** Undefined when it is not ISO 8601; an invalid Date when there is no such day. */
function readIso(text: string): Date | undefined {
  const [all, day = "", time = "00:00", zone = "Z"] = ISO.exec(text) ?? [];
  if (all === undefined) return undefined;
  const [hours, minutes = "00"] = zone.split(/(?<=^[+-]\d{2}):?/);
  const offset = /^z$/i.test(zone) ? "Z" : `${hours}:${minutes || "00"}`;
  // `Date` would make a day of the next month of one that does not exist.
  const exists = new Date(`${day}T00:00Z`).toJSON()?.startsWith(day) ?? false;
  return new Date(exists ? `${day}T${time}${offset}` : Number.NaN);
}

function readFreely(text: string): Date {
  if (!/\d{4}/.test(text)) return new Date(Number.NaN);
  return new Date(ZONED.test(text) ? text : `${text} UTC`);
}

/** What of a device's events is asked for; `events` are names. Throws 400. */
export function parseEventsQuery(query: URLSearchParams) {
  const names = (query.get("events") ?? "").split(",").filter((name) => name !== "");
  return {
    ...paging(query),
    events: names.map(parseEventName),
    orderBys: ordering((query.get("order_bys") ?? "").split(","), EVENTS_ORDER),
  };
}

function parseEventName(name: string): DeviceEventName {
  const known = EVENT_NAMES.find((event) => event === name);
  if (known === undefined)
    throw new AppError("invalid", `events must be among ${EVENT_NAMES.join(", ")}`);
  return known;
}
