import { Elysia, t } from "elysia";

import { type InflightBytes } from "../log/inflight-bytes.ts";
import { type Clients } from "../platform/http/clients.ts";
import { readJson } from "../platform/bodies/json.ts";
import { type Sql } from "../platform/database/database.ts";
import { NEVER, errors, json, jsonBody } from "../platform/http/docs.ts";
import { AppError, renderError } from "../platform/errors.ts";
import { mount } from "../platform/http/policy.ts";
import { decimal, text } from "../platform/schema.ts";
import { getSession, listSessions, parseSessionId, time } from "./list.ts";
import { StartBody, parseStartRequest } from "./schema.ts";
import { IOS_RULES, MOBILE_RULES, type Sessions } from "./service.ts";

export type StartRoutesDeps = {
  sessions: Sessions;
  clients: Clients;
  inflight: InflightBytes;
  jsonBytesMax: number;
};

export function startRoutes({ sessions, clients, inflight, jsonBytesMax }: StartRoutesDeps) {
  const readStart = async (request: Request) => {
    // Project 0: the project is unknown until the body is read.
    using held = inflight.holding(0);
    return parseStartRequest(await readStartJson(request, jsonBytesMax, held.reserve));
  };
  const start = (rules: typeof IOS_RULES) => async (request: Request) => {
    const context = {
      address: clients.address(request),
      network: clients.network(request),
      userAgent: request.headers.get("user-agent"),
    };
    return await sessions.start(await readStart(request), context, rules);
  };
  const ios = start(IOS_RULES);
  const mobile = start(MOBILE_RULES);
  return new Elysia({
    name: "session-starts",
    ...mount({ audience: "sdk", tag: "SDK", errors: renderError }),
  })
    .post("/v1/ios/start", ({ request }) => ios(request), {
      parse: "none",
      detail: startDetail("Start a session", IOS_EXAMPLE),
    })
    .post("/v1/mobile/start", ({ request }) => mobile(request), {
      parse: "none",
      detail: startDetail("Start a session (current SDKs)", MOBILE_EXAMPLE, 426),
    });
}

export type SessionRoutesDeps = {
  sql: Sql;
  /** Returns a summary of the batches and images that are stored of a session. */
  contents: (sessionId: bigint) => Promise<{ batches: object; images: number }>;
};

export function sessionRoutes({ sql, contents }: SessionRoutesDeps) {
  return new Elysia({
    name: "sessions",
    ...mount({ audience: "backend", tag: "Reading", errors: renderError }),
  })
    .get("/v1/sessions", ({ query }) => listSessions(sql, query), {
      query: t.Object({
        projectId: decimal(0, 2 ** 31 - 1, {
          description: "the internal id, as `project list` prints it",
        }),
        from: t.Optional(time({ description: "earliest start, ISO 8601 or epoch milliseconds" })),
        to: t.Optional(time({ description: "starts before this time" })),
        userUUID: t.Optional(t.String({ format: "uuid", problem: () => "must be a UUID" })),
        userID: t.Optional(text(1, 255)),
        device: t.Optional(
          text(1, 255, {
            description: "`userDevice` as it is listed",
            examples: ["iPhone 14 Pro"],
          }),
        ),
        limit: decimal(1, 1000, { default: 100 }),
        cursor: t.Optional(text(1, 64, { description: "`nextCursor` of the previous page" })),
      }),
      detail: {
        summary: "List a project's sessions, newest first",
        responses: { 200: json({ sessions: [SESSION_EXAMPLE], nextCursor: null }) },
      },
    })
    .get(
      "/v1/sessions/:sessionID",
      async ({ params }) => {
        const id = parseSessionId(params.sessionID);
        return { ...(await getSession(sql, id)), ...(await contents(id)) };
      },
      {
        detail: {
          summary: "Read a session, with a summary of its batches and images",
          responses: {
            200: json({ ...SESSION_EXAMPLE, batches: { count: 1 }, images: 0 }),
            ...errors(404),
          },
        },
      },
    );
}

/** Reads a body. Throws 400 instead of 413 if it is over the limit, because SDKs expect that. */
async function readStartJson(
  request: Request,
  bytesMax: number,
  hold: (bytes: number) => void,
): Promise<unknown> {
  try {
    // Some devices name themselves in another encoding than UTF-8; their sessions count, too.
    return await readJson(request, bytesMax, { hold, isLenient: true });
  } catch (error) {
    if (error instanceof AppError && error.code === "too_large")
      throw new AppError("invalid", error.message, { cause: error });
    throw error;
  }
}

function startDetail(summary: string, example: object, ...statuses: number[]) {
  return {
    summary,
    ...jsonBody(StartBody, example),
    // A body over the limit is answered 400.
    responses: {
      200: json(STARTED_EXAMPLE),
      ...errors(403, 404, 422, ...statuses, { 413: NEVER }),
    },
  };
}

const IOS_EXAMPLE = {
  projectID: 7_286_977_268_806_823,
  trackerVersion: "1.0.14",
  userUUID: "5f0c0f0e-3a51-4a57-9d4b-6f4d6d1c1b1a",
  userOSVersion: "17.4",
  userDevice: "iPhone15,2",
};

const MOBILE_EXAMPLE = {
  projectKey: "Vd4Xk0pSm2Qz7Hn1Tb5y",
  trackerVersion: "1.0.14",
  platform: "android",
  timestamp: 1_760_000_000_000,
  timezone: "UTC+02:00",
  width: 1080,
  height: 2400,
};

const STARTED_EXAMPLE = {
  token: "qrmzm0576vpj.0.mgjaueww.BLFF5p9sXZy6cpBNFGpcH4Ld3SK1GKh714ifrJ4SQpP3",
  sessionID: "3523215360000131335",
  userUUID: "5f0c0f0e-3a51-4a57-9d4b-6f4d6d1c1b1a",
  imagesHashList: ["9f86d081884c7d65"],
  beaconSizeLimit: 1_000_000,
  projectID: "1",
  quality: "low",
  fps: 1,
  framesSupport: true,
};

const SESSION_EXAMPLE = {
  sessionID: "3523215360000131335",
  projectId: 1,
  recorded: true,
  startedAt: "2025-10-09T08:53:20.000Z",
  platform: "ios",
  userDevice: "iPhone 14 Pro",
  userCountry: "UN",
};
