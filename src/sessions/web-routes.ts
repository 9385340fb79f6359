import { Elysia } from "elysia";

import { errors, json } from "../platform/http/docs.ts";
import { AppError, renderError } from "../platform/errors.ts";
import { mount } from "../platform/http/policy.ts";
import { parseDecimal } from "../platform/whole-numbers.ts";
import { type Sessions } from "./service.ts";
import { type SessionToken } from "./token.ts";

export type WebRoutesDeps = {
  sessions: Sessions;
  /** Returns the token of a request. Throws 401. */
  authorize: (request: Request) => SessionToken;
};

/** Routes by which trackers ask for tags and conditions. All answer an empty list. */
export function webRoutes({ sessions, authorize }: WebRoutesDeps) {
  const conditions = async (request: Request, projectID: string) => {
    const { projectId } = await sessions.admit(authorize(request).sessionId);
    const asked = parseDecimal(projectID);
    if (asked === undefined) throw new AppError("invalid", "projectID is not a whole number");
    // A session without a row has no known project that the path could contradict.
    if (projectId !== 0 && BigInt(projectId) !== asked)
      throw new AppError("forbidden", "the session belongs to another project");
    return { conditions: [] };
  };
  return new Elysia({
    name: "web-instructions",
    ...mount({ audience: "sdk", tag: "SDK", credential: "session", errors: renderError }),
  })
    .get(
      "/v1/web/tags",
      async ({ request }) => {
        await sessions.admit(authorize(request).sessionId);
        return { tags: [] };
      },
      {
        detail: {
          summary: "List the elements to watch: none",
          responses: { 200: json({ tags: [] }) },
        },
      },
    )
    .get(
      "/v1/web/conditions/:projectID",
      ({ request, params }) => conditions(request, params.projectID),
      { detail: conditionsDetail() },
    )
    .get(
      "/v1/mobile/conditions/:projectID",
      ({ request, params }) => conditions(request, params.projectID),
      { detail: conditionsDetail() },
    );
}

function conditionsDetail() {
  return {
    summary: "List the conditions that start a recording: none",
    responses: { 200: json({ conditions: [] }), ...errors(400, 403) },
  };
}
