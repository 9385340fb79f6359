import { Elysia } from "elysia";

import { type InflightBytes } from "../log/inflight-bytes.ts";
import { readContent } from "../platform/bodies/content.ts";
import { json } from "../platform/http/docs.ts";
import { renderError } from "../platform/errors.ts";
import { mount } from "../platform/http/policy.ts";
import { type SessionToken } from "./token.ts";

export type OldTrackerRoutesDeps = {
  /** Returns the token of a request. Throws 401. */
  authorize: (request: Request) => SessionToken;
  inflight: InflightBytes;
  jsonBytesMax: number;
};

/** Routes that only web trackers up to version 16 call. They are answered, so that these go on. */
export function oldTrackerRoutes({ authorize, inflight, jsonBytesMax }: OldTrackerRoutesDeps) {
  const discard = async (request: Request) => {
    using held = inflight.holding(0);
    await readContent(request, jsonBytesMax, held.reserve);
    return new Response();
  };
  const signal = async ({ request }: { request: Request }) => {
    authorize(request);
    return await discard(request);
  };
  return new Elysia({
    name: "old-trackers",
    ...mount({ audience: "sdk", tag: "SDK", errors: renderError }),
  })
    .post("/v1/web/not-started", ({ request }) => discard(request), {
      parse: "none",
      detail: detail("Say why no session was started; ignored"),
    })
    .post(
      "/v1/web/feature-flags",
      async ({ request }) => {
        await discard(request);
        return { flags: [] };
      },
      { parse: "none", detail: detail("List feature flags: none", json({ flags: [] })) },
    )
    .post("/v1/web/uxt/signals/test", signal, { parse: "none", detail: signalDetail() })
    .post("/v1/web/uxt/signals/task", signal, { parse: "none", detail: signalDetail() });
}

function detail(summary: string, ok: object = { description: "Read" }) {
  return {
    summary: `${summary} (old trackers)`,
    requestBody: {
      content: {
        "text/plain": {
          schema: { type: "string" as const, description: "ignored" },
          example: '{"reason":"dnt"}',
        },
      },
    },
    responses: { 200: { description: "OK", ...ok } },
  };
}

function signalDetail() {
  return {
    ...detail("Report on a usability test; ignored"),
    security: [{ session: [] }],
  };
}
