import { t } from "elysia";

import { type RecipientFields } from "../devices/recipients.ts";
import { type Clock } from "../platform/clock.ts";
import { decimal, list, orNull, readBy, ruled, text, whole } from "../platform/schema.ts";
import { IGNORED, PAGING, PushBody, orderBys } from "../wire/jraze.ts";
import { type DeviceEventName, STATUS, type Status } from "./enums.ts";
import { SCHEDULE, parseSchedule } from "./schedule.ts";

const EVENT_NAMES: DeviceEventName[] = [
  "targeted",
  "sent",
  "failed",
  "invalid_token",
  "undeliverable",
];
const EVENT_NAME = EVENT_NAMES.join("|");
const EVENTS_RULE = `names among ${EVENT_NAMES.join(", ")}, comma-separated`;
const LIST_ORDER = {
  created_at: "n.created_at",
  modified_at: "n.modified_at",
  scheduled_at: "n.scheduled_at",
};
const EVENTS_ORDER = { created_at: "e.created_at", id: "e.id" };

const STATUS_MAX = Math.max(...Object.values(STATUS));
const TITLE_MAX = 255;
const BODY_MAX = 4096;
const URL_MAX = 2048;
const ID_MAX = Number.MAX_SAFE_INTEGER;
const DEVICE_IDS_MAX = 100_000;
const INCREASE_MAX = 2 ** 31 - 1;

const url = t.Optional(orNull(text(0, URL_MAX)));

/** Makes the body of a draft, whose recipients are described by the devices. */
export function draftBody(recipients: RecipientFields, clock: Clock) {
  return new PushBody({
    title: text(0, TITLE_MAX),
    body: text(0, BODY_MAX),
    image_url: url,
    icon_url: url,
    deep_link: url,
    scheduled_at: readBy({ ...SCHEDULE, default: "" }, (value) =>
      parseSchedule(value ?? "", new Date(clock.epochMs())),
    ),
    ...recipients,
    status: IGNORED,
  });
}

export type CampaignDraft = ReturnType<ReturnType<typeof draftBody>["read"]>;

/** Body of a change of status. */
export const StatusChange = new PushBody({
  status: ruled<Status>({ type: "integer", minimum: 0, maximum: STATUS_MAX }, (value) =>
    Object.values<unknown>(STATUS).includes(value)
      ? undefined
      : `must be a number from 0 to ${STATUS_MAX}`,
  ),
  title: IGNORED,
  body: IGNORED,
  image_url: IGNORED,
  icon_url: IGNORED,
  deep_link: IGNORED,
  conditions: IGNORED,
  external_ids: IGNORED,
  scheduled_at: IGNORED,
});

/** Body of a launch, which may only have what changes nothing. */
export const Launch = new PushBody({ status: IGNORED });

/** Body of targets that an external worker logs. */
export const TargetLog = new PushBody({
  device_ids: list(whole(Number.MIN_SAFE_INTEGER, ID_MAX), DEVICE_IDS_MAX),
  notification_id: whole(0, ID_MAX),
});

/** Body of sends that an external worker counts. */
export const SentIncrease = new PushBody({
  ios: whole(0, INCREASE_MAX),
  android: whole(0, INCREASE_MAX),
});

/** Query of a list of campaigns. */
export const ListQuery = t.Object({
  ...PAGING,
  status: t.Optional(decimal(0, STATUS_MAX)),
  order_bys: orderBys(LIST_ORDER),
});

/** Query for events of a device. */
export const EventsQuery = t.Object({
  ...PAGING,
  events: t
    .Transform(
      t.String({
        default: "",
        pattern: `^(?:${EVENT_NAME})?(?:,(?:${EVENT_NAME})?)*$`,
        problem: () => `takes ${EVENTS_RULE}`,
        description: `${EVENTS_RULE}, not numbers; absent: any`,
      }),
    )
    .Decode((listed) => {
      const names = listed.split(",");
      return EVENT_NAMES.filter((name) => names.includes(name));
    })
    .Encode(String),
  order_bys: orderBys(EVENTS_ORDER),
});
