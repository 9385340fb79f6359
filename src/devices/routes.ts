import { Elysia } from "elysia";

import { jsonBody } from "../platform/http/docs.ts";
import { mount } from "../platform/http/policy.ts";
import { detail, envelope, literal, renderEnvelope } from "../wire/jraze.ts";
import { CONDITION_MODEL } from "./conditions.ts";
import { DeviceBody, PropertiesBody, Search } from "./schema.ts";
import { type Devices } from "./service.ts";

export function deviceRoutes(devices: Devices) {
  return new Elysia({
    name: "devices",
    ...mount({ audience: "backend", tag: "Push", errors: renderEnvelope }),
  })
    .model(CONDITION_MODEL)
    .put(
      "/devices",
      async ({ request }) => envelope(await devices.upsert(await DeviceBody.of(request))),
      {
        parse: "none",
        detail: {
          ...detail("Make or change a device", DEVICE_EXAMPLE),
          ...jsonBody(DeviceBody, DEVICE_BODY),
        },
      },
    )
    .get(
      "/devices/:external_id",
      async ({ params }) => envelope(await devices.get(params.external_id)),
      { detail: detail("One device", DEVICE_EXAMPLE, 404) },
    )
    .post(
      "/devices/:external_id/properties/:add",
      async ({ params, request }) => {
        literal(params.add, ":add");
        const { properties } = await PropertiesBody.of(request);
        return envelope(await devices.setProperties(params.external_id, properties));
      },
      {
        parse: "none",
        detail: {
          ...detail("`:add` sets properties; null removes one", DEVICE_EXAMPLE, 404),
          ...jsonBody(PropertiesBody, PROPERTIES_BODY),
        },
      },
    )
    .post(
      "/devices/-/:search",
      async ({ params, request }) => {
        literal(params.search, ":search");
        const { order_bys: orderBys, external_ids: ids, ...rest } = await Search.of(request);
        const externalIds = ids.length === 0 ? undefined : ids;
        const { total, devices: found } = await devices.search({ ...rest, orderBys, externalIds });
        return envelope(found, { "x-total-count": String(total) });
      },
      {
        parse: "none",
        detail: {
          ...detail(SEARCH, [DEVICE_EXAMPLE]),
          ...jsonBody(Search, SEARCH_BODY),
        },
      },
    );
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
