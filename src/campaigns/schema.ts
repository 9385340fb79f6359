import { AppError } from "../platform/errors.ts";
import { t } from "elysia";

import { PAGING, fieldsOf, orderBys } from "../wire/jraze.ts";
import { integer } from "../platform/http/parameters.ts";
import { type DeviceEventName, STATUS, type Status } from "./enums.ts";
import { parseSchedule } from "./schedule.ts";

const EVENT_NAMES: DeviceEventName[] = [
  "targeted",
  "sent",
  "failed",
  "invalid_token",
  "undeliverable",
];
// `status` is accepted because clients send back the campaign that they were answered.
const CAMPAIGN_FIELDS = [
  "title",
  "body",
  "image_url",
  "icon_url",
  "deep_link",
  "conditions",
  "external_ids",
  "scheduled_at",
  "status",
];
const EVENTS_RULE = `names among ${EVENT_NAMES.join(", ")}, comma-separated`;
const LIST_ORDER = {
  created_at: "n.created_at",
  modified_at: "n.modified_at",
  scheduled_at: "n.scheduled_at",
};
const EVENTS_ORDER = { created_at: "e.created_at", id: "e.id" };

const TITLE_MAX = 255;
const BODY_MAX = 4096;
const URL_MAX = 2048;
const ID_MAX = Number.MAX_SAFE_INTEGER;
const DEVICE_IDS_MAX = 100_000;
const INCREASE_MAX = 2 ** 31 - 1;

export type CampaignDraft = {
  title: string;
  body: string;
  imageUrl: string | undefined;
  iconUrl: string | undefined;
  deepLink: string | undefined;
  conditions: unknown;
  externalIds: unknown;
  scheduledAt: Date;
};

/**
 * Parses a draft from a client; its conditions and external ids are not validated yet. Throws 400.
 */
export function parseCampaign(value: unknown, now: Date): CampaignDraft {
  const fields = fieldsOf(value, CAMPAIGN_FIELDS);
  return {
    title: fields.text("title", 0, TITLE_MAX),
    body: fields.text("body", 0, BODY_MAX),
    imageUrl: fields.optionalText("image_url", URL_MAX),
    iconUrl: fields.optionalText("icon_url", URL_MAX),
    deepLink: fields.optionalText("deep_link", URL_MAX),
    // Null is refused, so that a campaign without conditions does not reach every device by accident.
    conditions: fields.get("conditions") ?? null,
    externalIds: fields.get("external_ids"),
    scheduledAt: parseSchedule(fields.get("scheduled_at") ?? "", now),
  };
}

/** Parses a change of status. Throws 400. */
export function parseStatusChange(value: unknown): Status {
  return parseStatus(fieldsOf(value, CAMPAIGN_FIELDS).get("status"));
}

export function parseStatus(value: unknown): Status {
  const status = Object.values(STATUS).find((known) => known === value);
  if (status === undefined) throw new AppError("invalid", "status must be a number from 0 to 5");
  return status;
}

/** Parses the targets that an external worker logs. Throws 400. */
export function parseLog(value: unknown): { deviceIds: number[]; notificationId: number } {
  const fields = fieldsOf(value, ["device_ids", "notification_id"]);
  if (fields.get("device_ids") === undefined)
    throw new AppError("invalid", "device_ids is missing");
  const deviceIds = fields.list("device_ids", DEVICE_IDS_MAX).map((id) => {
    if (typeof id !== "number" || !Number.isSafeInteger(id))
      throw new AppError("invalid", "device_ids must be whole numbers");
    return id;
  });
  return { deviceIds, notificationId: fields.integer("notification_id", 0, ID_MAX) };
}

/** Parses the sends that an external worker counts. Throws 400. */
export function parseIncrease(value: unknown): { ios: number; android: number } {
  const fields = fieldsOf(value, ["ios", "android"]);
  return {
    ios: fields.integer("ios", 0, INCREASE_MAX),
    android: fields.integer("android", 0, INCREASE_MAX),
  };
}

/** Query of a list of campaigns. */
export const ListQuery = t.Object({
  ...PAGING,
  status: t.Optional(integer("status", 0, 5)),
  order_bys: orderBys(LIST_ORDER),
});

/** Query for events of a device. */
export const EventsQuery = t.Object({
  ...PAGING,
  events: t
    .Transform(t.String({ default: "", description: `${EVENTS_RULE}, not numbers; absent: any` }))
    .Decode((text) =>
      text
        .split(",")
        .filter((name) => name !== "")
        .map(parseEventName),
    )
    .Encode(String),
  order_bys: orderBys(EVENTS_ORDER),
});

function parseEventName(name: string): DeviceEventName {
  const known = EVENT_NAMES.find((event) => event === name);
  if (known === undefined) throw new AppError("invalid", `events takes ${EVENTS_RULE}`);
  return known;
}
