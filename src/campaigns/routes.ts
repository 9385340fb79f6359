import { Elysia } from "elysia";

import { type Clock } from "../platform/clock.ts";
import { jsonBody, queryParameter } from "../platform/http/docs.ts";
import { queryOf } from "../platform/http/parameters.ts";
import { type Policy, mount } from "../platform/http/policy.ts";
import {
  detail,
  envelope,
  fieldsOf,
  literal,
  paging,
  readJson,
  renderEnvelope,
} from "../wire/jraze.ts";
import { isRecord } from "../platform/json.ts";
import { ORDER_BYS_RULE, ordering } from "../platform/database/ordering.ts";
import { STATUS } from "./enums.ts";
import {
  parseIncrease,
  parseLog,
  parseCampaign,
  parseStatus,
  parseStatusChange,
} from "./schema.ts";
import { type Campaigns } from "./service.ts";

const POLICY: Policy = { audience: "backend", tag: "Push", errors: renderEnvelope };

const LIST_ORDER = {
  created_at: "n.created_at",
  modified_at: "n.modified_at",
  scheduled_at: "n.scheduled_at",
};

export type CampaignRoutesDeps = {
  campaigns: Campaigns;
  /** Counts the devices that a campaign would be sent to. Throws 400 for invalid recipients. */
  estimate: (given: { conditions: unknown; external_ids: unknown }) => Promise<number>;
  clock: Clock;
};

export function campaignRoutes(deps: CampaignRoutesDeps) {
  const { campaigns, estimate, clock } = deps;
  /** Handles both actions, because the router treats them as one route. */
  const launchOrEstimate = async (params: { uuid: string; launch: string }, request: Request) => {
    if (params.uuid !== "-") {
      literal(params.launch, ":launch");
      await checkLaunch(request);
      return envelope(await campaigns.launch(params.uuid));
    }
    literal(params.launch, ":estimate");
    return envelope({ count: await estimate(parseEstimate(await readJson(request))) });
  };
  return new Elysia({ name: "campaigns", ...mount(POLICY) })
    .post(
      "/notifications",
      async ({ request }) =>
        envelope(
          await campaigns.create(parseCampaign(await readJson(request), new Date(clock.epochMs()))),
        ),
      {
        parse: "none",
        detail: draftDetail(),
      },
    )
    .get(
      "/notifications",
      async ({ request }) => {
        const query = parseList(queryOf(request));
        const { total, campaigns: found } = await campaigns.list(query);
        return envelope(found, { "x-total-count": String(total) });
      },
      { detail: listDetail() },
    )
    .get("/notifications/:uuid", async ({ params }) => envelope(await campaigns.get(params.uuid)), {
      detail: detail("One campaign and how far it is", CAMPAIGN_EXAMPLE, 403, 404),
    })
    .put(
      "/notifications/:uuid/status",
      async ({ params, request }) => {
        await campaigns.get(params.uuid);
        const status = parseStatusChange(await readJson(request));
        return envelope(await campaigns.setStatus(params.uuid, status));
      },
      {
        parse: "none",
        detail: {
          ...detail(SET_STATUS, CAMPAIGN_EXAMPLE, 400, 403, 404, 413),
          ...jsonBody({ status: STATUS.deleted }),
        },
      },
    )
    .post(
      "/notifications/:uuid/:launch",
      ({ params, request }) => launchOrEstimate(params, request),
      {
        parse: "none",
        detail: {
          ...detail(LAUNCH, CAMPAIGN_EXAMPLE, 400, 403, 404, 409, 413),
          ...jsonBody({ conditions: CONDITIONS, external_ids: ["7c9e6679"] }),
        },
      },
    );
}

/** Builds the routes for external workers, which expect their own text when a key is refused. */
export function internalRoutes({ campaigns }: Pick<CampaignRoutesDeps, "campaigns">) {
  return new Elysia({
    name: "internal",
    ...mount({ ...POLICY, keyRefusal: "api server key validating failed" }),
  })
    .post(
      "/internal/devices/logs/:action",
      async ({ params, request }) => {
        literal(params.action, "notification:add");
        const { notificationId, deviceIds } = parseLog(await readJson(request));
        return envelope(await campaigns.logTargets(notificationId, deviceIds));
      },
      {
        parse: "none",
        detail: {
          ...detail(
            "`notification:add` logs that devices were targeted, and answers for how many: unknown ids are left out",
            2,
            400,
            403,
            413,
          ),
          ...jsonBody({ device_ids: [1, 2], notification_id: 1 }),
        },
      },
    )
    .post(
      "/internal/notifications/:uuid/:action",
      async ({ params, request }) => {
        literal(params.action, "sent:increase");
        const increase = parseIncrease(await readJson(request));
        return envelope(await campaigns.increaseSent(params.uuid, increase));
      },
      {
        parse: "none",
        detail: {
          ...detail(
            "`sent:increase` adds what was sent",
            { ios: 1, android: 2 },
            400,
            403,
            404,
            413,
          ),
          ...jsonBody({ ios: 1, android: 2 }),
        },
      },
    );
}

function parseEstimate(body: unknown) {
  const fields = fieldsOf(body, ["conditions", "external_ids"]);
  return { conditions: fields.get("conditions"), external_ids: fields.get("external_ids") };
}

/**
 * Throws 400 if the launch has a body that names recipients or a time; any other body is ignored.
 */
async function checkLaunch(request: Request): Promise<void> {
  const body: unknown = await readJson(request).catch(() => undefined);
  if (isRecord(body)) fieldsOf(body, ["status"]);
}

function parseList(query: URLSearchParams) {
  const status = query.get("status");
  return {
    ...paging(query),
    status:
      status === null ? undefined : parseStatus(/^\d$/.test(status) ? Number(status) : status),
    orderBys: ordering((query.get("order_bys") ?? "").split(","), LIST_ORDER),
  };
}

function draftDetail() {
  return {
    ...detail(
      "Draft a campaign; external_ids narrows the conditions to devices by name",
      CAMPAIGN_EXAMPLE,
      400,
      403,
      413,
    ),
    ...jsonBody(CAMPAIGN_BODY),
  };
}

function listDetail() {
  return {
    ...detail("Campaigns; X-Total-Count has their number", [CAMPAIGN_EXAMPLE], 400, 403),
    parameters: LIST_PARAMETERS,
  };
}

const SET_STATUS = "Set the status; deleted (4) cancels what is not sent";

const LAUNCH =
  "`:launch` sends a campaign at its time; `/notifications/-/:estimate` counts the audience of conditions";

const CONDITIONS = { key: "plan", operator: "str_eq", value: "pro" };

const LIST_PARAMETERS = [
  queryParameter("status", "a number from 0 to 5"),
  queryParameter("start", "how many to pass over; 0"),
  queryParameter("size", "how many, 1 to 1000; 10"),
  queryParameter("order_bys", `created_at, modified_at, scheduled_at; ${ORDER_BYS_RULE}`),
];

const CAMPAIGN_BODY = {
  title: "Hello",
  body: "There is news.",
  deep_link: "app://news",
  conditions: CONDITIONS,
  external_ids: ["7c9e6679"],
  scheduled_at: "2026-12-24T18:00:00Z",
};

const CAMPAIGN_EXAMPLE = {
  id: 1,
  uuid: "5f0c0f0e-3a51-4a57-9d4b-6f4d6d1c1b1a",
  ...CAMPAIGN_BODY,
  sent: { android: 0, ios: 0 },
  image_url: null,
  icon_url: null,
  conditions: { conditions: null, ...CONDITIONS, join_type: null },
  status: 0,
  scheduled_at: "2026-12-24T18:00:00.000Z",
  created_at: "2026-11-22T09:00:00.000Z",
  modified_at: null,
  sent_web: 0,
  targeted: 0,
  failed: 0,
  error: null,
};
