import { Elysia } from "elysia";

import { jsonBody } from "../platform/http/docs.ts";
import { mount } from "../platform/http/policy.ts";
import {
  detail,
  envelope,
  fieldsOf,
  literal,
  readJson,
  renderEnvelope,
  wholeOrText,
} from "../wire/jraze.ts";
import { textOf } from "../platform/text.ts";
import { ordering } from "../platform/database/ordering.ts";
import { type Condition, parseConditions } from "./conditions.ts";
import { parseProperties } from "./properties.ts";
import { EXTERNAL_ID_TEXT_MAX } from "./recipients.ts";
import { parseDevice } from "./schema.ts";
import { type Devices } from "./service.ts";

const EXTERNAL_IDS_MAX = 1000;
const ORDER_BYS_MAX = 10;
const START_MAX = 2 ** 31 - 1;
const SIZE_MAX = 1000;

const DEVICE_FIELDS = ["external_id", "push_token", "send_platform", "device_platform"];
const SEARCH_FIELDS = ["external_ids", "conditions", "start", "size", "order_bys"];

const SEARCH_ORDER = {
  id: "d.id",
  external_id: "external_id",
  random_bucket: "random_bucket",
  send_platform: "send_platform",
  device_platform: "device_platform",
};

export function deviceRoutes(devices: Devices) {
  return new Elysia({
    name: "devices",
    ...mount({ audience: "backend", tag: "Push", errors: renderEnvelope }),
  })
    .put(
      "/devices",
      async ({ request }) =>
        envelope(
          await devices.upsert(parseDevice(fieldsOf(await readJson(request), DEVICE_FIELDS))),
        ),
      {
        parse: "none",
        detail: {
          ...detail("Make or change a device", DEVICE_EXAMPLE, 400, 403, 413),
          ...jsonBody(DEVICE_BODY),
        },
      },
    )
    .get(
      "/devices/:external_id",
      async ({ params }) => envelope(await devices.get(params.external_id)),
      { detail: detail("One device", DEVICE_EXAMPLE, 403, 404) },
    )
    .post(
      "/devices/:external_id/properties/:add",
      async ({ params, request }) => {
        literal(params.add, ":add");
        const fields = fieldsOf(await readJson(request), ["properties"]);
        const changes = parseProperties(fields.get("properties"));
        return envelope(await devices.setProperties(params.external_id, changes));
      },
      {
        parse: "none",
        detail: {
          ...detail("`:add` sets properties; null removes one", DEVICE_EXAMPLE, 400, 403, 404, 413),
          ...jsonBody(PROPERTIES_BODY),
        },
      },
    )
    .post(
      "/devices/-/:search",
      async ({ params, request }) => {
        literal(params.search, ":search");
        const { total, devices: found } = await devices.search(
          parseSearch(await readJson(request)),
        );
        return envelope(found, { "x-total-count": String(total) });
      },
      {
        parse: "none",
        detail: {
          ...detail(SEARCH, [DEVICE_EXAMPLE], 400, 403, 413),
          ...jsonBody(SEARCH_BODY),
        },
      },
    );
}

function parseSearch(value: unknown) {
  const fields = fieldsOf(value, SEARCH_FIELDS);
  const texts = (name: string, max: number) =>
    fields.list(name, max).map((item) => textOf(item, name, 0, EXTERNAL_ID_TEXT_MAX));
  const number = (name: string, absent: number) =>
    fields.get(name) === undefined ? absent : fields.get(name);
  const externalIds = texts("external_ids", EXTERNAL_IDS_MAX);
  return {
    // An empty list does not narrow the search.
    externalIds: externalIds.length === 0 ? undefined : externalIds,
    conditions: conditionsOf(fields.get("conditions")),
    start: wholeOrText(number("start", 0), "start", 0, START_MAX),
    size: wholeOrText(number("size", 10), "size", 1, SIZE_MAX),
    orderBys: ordering(texts("order_bys", ORDER_BYS_MAX), SEARCH_ORDER),
  };
}

/** Parses conditions of a search, which default to every device. Null is refused. */
function conditionsOf(value: unknown): Condition {
  return parseConditions(value === undefined ? {} : value);
}

const SEARCH = "`:search` finds devices that meet conditions; X-Total-Count has their number";

const DEVICE_BODY = {
  external_id: "7c9e6679",
  push_token: "fGc1x…",
  send_platform: 1,
  device_platform: 1,
};

const PROPERTIES_BODY = {
  properties: [
    { key: "plan", value: "pro" },
    { key: "age", value: 30 },
    { key: "trial", value: null },
  ],
};

const SEARCH_BODY = {
  external_ids: [],
  conditions: {
    join_type: "AND",
    conditions: [
      { key: "plan", operator: "str_eq", value: "pro" },
      { key: "age", operator: "int_gte", value: "18" },
    ],
  },
  order_bys: ["-id"],
  start: 0,
  size: 10,
};

const DEVICE_EXAMPLE = {
  _id: "000000000000000000000001",
  id: 1,
  ...DEVICE_BODY,
  random_bucket: 4711,
  device_properties: [{ age: 30 }, { plan: "pro" }],
};
