import { Elysia } from "elysia";

import { type Clock } from "../platform/clock.ts";
import { jsonBody } from "../platform/http/docs.ts";
import { type Policy, mount } from "../platform/http/policy.ts";
import { type EstimateBody, type RecipientFields, type Recipients } from "../devices/recipients.ts";
import { detail, envelope, literal, readJson, renderEnvelope } from "../wire/jraze.ts";
import { isRecord } from "../platform/json.ts";
import { STATUS } from "./enums.ts";
import {
  EventsQuery,
  Launch,
  ListQuery,
  SentIncrease,
  StatusChange,
  TargetLog,
  draftBody,
} from "./schema.ts";
import { type Campaigns } from "./service.ts";

const POLICY: Policy = { audience: "backend", tag: "Push", errors: renderEnvelope };

export type CampaignRoutesDeps = {
  campaigns: Campaigns;
  /** Fields that name recipients. */
  recipients: RecipientFields;
  /** Body of an estimate, and a count of the devices that a campaign would be sent to. */
  estimate: { body: typeof EstimateBody; count: (recipients: Recipients) => Promise<number> };
  clock: Clock;
};

export function campaignRoutes(deps: CampaignRoutesDeps) {
  const { campaigns, recipients, estimate, clock } = deps;
  const draft = draftBody(recipients, clock);
  /** Handles both actions, because the router treats them as one route. */
  const launchOrEstimate = async (params: { uuid: string; launch: string }, request: Request) => {
    if (params.uuid !== "-") {
      literal(params.launch, ":launch");
      await checkLaunch(request);
      return envelope(await campaigns.launch(params.uuid));
    }
    literal(params.launch, ":estimate");
    const { conditions, external_ids: externalIds } = await estimate.body.of(request);
    return envelope({ count: await estimate.count({ conditions, externalIds }) });
  };
  return new Elysia({ name: "campaigns", ...mount(POLICY) })
    .post(
      "/notifications",
      async ({ request }) => envelope(await campaigns.create(await draft.of(request))),
      {
        parse: "none",
        detail: { ...detail(DRAFT, CAMPAIGN_EXAMPLE), ...jsonBody(draft, CAMPAIGN_BODY) },
      },
    )
    .get(
      "/notifications",
      async ({ query: { order_bys, ...page } }) => {
        const { total, campaigns: found } = await campaigns.list({ ...page, orderBys: order_bys });
        return envelope(found, { "x-total-count": String(total) });
      },
      {
        query: ListQuery,
        detail: detail("Campaigns; X-Total-Count has their number", [CAMPAIGN_EXAMPLE]),
      },
    )
    .get("/notifications/:uuid", async ({ params }) => envelope(await campaigns.get(params.uuid)), {
      detail: detail("One campaign and how far it is", CAMPAIGN_EXAMPLE, 404),
    })
    .put(
      "/notifications/:uuid/status",
      async ({ params, request }) => {
        await campaigns.get(params.uuid);
        const { status } = await StatusChange.of(request);
        return envelope(await campaigns.setStatus(params.uuid, status));
      },
      {
        parse: "none",
        detail: {
          ...detail(SET_STATUS, CAMPAIGN_EXAMPLE, 404),
          ...jsonBody(StatusChange, { status: STATUS.deleted }),
        },
      },
    )
    .post(
      "/notifications/:uuid/:launch",
      ({ params, request }) => launchOrEstimate(params, request),
      {
        parse: "none",
        detail: {
          ...detail(LAUNCH, CAMPAIGN_EXAMPLE, 404, 409),
          ...jsonBody(estimate.body, ESTIMATE_BODY, false),
        },
      },
    );
}

/** Builds the route that tells what became of a device in campaigns. */
export function eventRoutes({ campaigns }: Pick<CampaignRoutesDeps, "campaigns">) {
  return new Elysia({ name: "device-events", ...mount(POLICY) }).get(
    "/devices/:external_id/notifications",
    async ({ params, query: { order_bys, ...page } }) =>
      envelope(await campaigns.eventsOf(params.external_id, { ...page, orderBys: order_bys })),
    {
      query: EventsQuery,
      detail: detail("What became of the device in campaigns", EVENTS_EXAMPLE, 404),
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
        const { notification_id: id, device_ids: deviceIds } = await TargetLog.of(request);
        return envelope(await campaigns.logTargets(id, deviceIds));
      },
      {
        parse: "none",
        detail: {
          ...detail(
            "`notification:add` logs that devices were targeted, and answers for how many: unknown ids are left out",
            2,
          ),
          ...jsonBody(TargetLog, { device_ids: [1, 2], notification_id: 1 }),
        },
      },
    )
    .post(
      "/internal/notifications/:uuid/:action",
      async ({ params, request }) => {
        literal(params.action, "sent:increase");
        const increase = await SentIncrease.of(request);
        return envelope(await campaigns.increaseSent(params.uuid, increase));
      },
      {
        parse: "none",
        detail: {
          ...detail("`sent:increase` adds what was sent", { ios: 1, android: 2 }, 404),
          ...jsonBody(SentIncrease, { ios: 1, android: 2 }),
        },
      },
    );
}

/**
 * Throws 400 if the launch has a body that names recipients or a time; any other body is ignored.
 */
async function checkLaunch(request: Request): Promise<void> {
  const body: unknown = await readJson(request).catch(() => undefined);
  if (isRecord(body)) Launch.read(body);
}

const DRAFT = "Draft a campaign; external_ids narrows the conditions to devices by name";

const SET_STATUS = "Set the status; deleted (4) cancels what is not sent";

const LAUNCH =
  "`:launch` sends a campaign at its time; `/notifications/-/:estimate` counts the audience of conditions";

const CONDITIONS = { key: "plan", operator: "str_eq", value: "pro" };

const ESTIMATE_BODY = { conditions: CONDITIONS, external_ids: ["7c9e6679"] };

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

const EVENTS_EXAMPLE = {
  total: 2,
  events: [
    {
      id: 2,
      notification: { id: 1, uuid: "5f0c0f0e-3a51-4a57-9d4b-6f4d6d1c1b1a", title: "Hello" },
      event: "sent",
      created_at: "2026-12-24T18:00:01.000Z",
    },
  ],
};
