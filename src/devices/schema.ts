import { t } from "elysia";

import { PROVIDERS } from "../platform/config/push-config.ts";
import { ordering } from "../platform/database/ordering.ts";
import { DEVICE_PLATFORM } from "../platform/device-platforms.ts";
import { Input } from "../platform/input.ts";
import { list, ruled, text, whole, wholeProblem } from "../platform/schema.ts";
import { PAGING, PushBody } from "../wire/jraze.ts";
import { conditionTree } from "./conditions.ts";
import { PROPERTIES } from "./properties.ts";
import { EXTERNAL_ID_TEXT } from "./recipients.ts";

const ID = text(1, 255);
const DEVICE_PLATFORM_MAX = Math.max(...Object.values(DEVICE_PLATFORM));

const DEVICE = {
  external_id: ruled<string>({ ...ID, pattern: "^(?!\\.{1,2}$)[^\\0]*$" }, (value) =>
    // Clients and proxies drop such a segment from a path, which would make the device unreachable.
    value === "." || value === ".." ? "must not be . or .." : ID.problem(value),
  ),
  push_token: text(0, 4096),
  // The table of providers may have got entries since this file was loaded.
  send_platform: ruled<number>(whole(0, sendPlatformMax(), { default: 0 }), (value) =>
    wholeProblem(value, 0, sendPlatformMax()),
  ),
  device_platform: whole(0, DEVICE_PLATFORM_MAX, { default: 0 }),
};

/** Body that makes or changes a device. */
export const DeviceBody = new PushBody(DEVICE);
/** Fields of a device in a line of an import. */
export const DeviceLine = new Input(DEVICE, { what: "it" });

export type DeviceInput = ReturnType<typeof DeviceBody.read>;

const SEARCH_ORDER = {
  id: "d.id",
  external_id: "external_id",
  random_bucket: "random_bucket",
  send_platform: "send_platform",
  device_platform: "device_platform",
};

/** Body of a change of properties. */
export const PropertiesBody = new PushBody({ properties: PROPERTIES });

/** Body of a search. */
export const Search = new PushBody({
  // An empty list does not narrow the search.
  external_ids: list(EXTERNAL_ID_TEXT, 1000, { default: [] }),
  conditions: conditionTree({ default: {} }),
  ...PAGING,
  order_bys: t
    .Transform(list(EXTERNAL_ID_TEXT, 10, { default: [] }))
    .Decode((names) => ordering(names, SEARCH_ORDER))
    .Encode(() => []),
});

function sendPlatformMax(): number {
  return Math.max(...Object.values(PROVIDERS).map(({ sendPlatform }) => sendPlatform));
}
