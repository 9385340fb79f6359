import { Elysia } from "elysia";

import { type InflightBytes } from "../log/inflight-bytes.ts";
import { type Clients } from "../platform/http/clients.ts";
import { readContent } from "../platform/bodies/content.ts";
import { decodeJson } from "../platform/json.ts";
import { type Sql } from "../platform/database/database.ts";
import { NEVER, errors, json, jsonBody, queryParameters } from "../platform/http/docs.ts";
import { AppError, renderError } from "../platform/errors.ts";
import { mount } from "../platform/http/policy.ts";
import { getSession, listSessions, parseSessionId } from "./list.ts";
import {
  AnalyticsBody,
  MobileBody,
  type StartRequest,
  WebBody,
  parseAnalyticsStart,
  parseMobileStart,
  parseWebStart,
} from "./schema.ts";
import { SessionQuery } from "./session-query.ts";
import { type StartAnswers } from "./start-answers.ts";
import {
  ANALYTICS_RULES,
  IOS_RULES,
  MOBILE_RULES,
  type StartRules,
  WEB_RULES,
} from "./start-rules.ts";
import { type Started, type Starts } from "./starts.ts";

export type StartRoutesDeps = {
  starts: Starts;
  answers: StartAnswers;
  clients: Clients;
  inflight: InflightBytes;
  jsonBytesMax: number;
};

type Contract = {
  rules: StartRules;
  answer: (started: Started) => object | Promise<object>;
  parse: (fields: unknown) => StartRequest;
};

export function startRoutes({ starts, answers, clients, inflight, jsonBytesMax }: StartRoutesDeps) {
  const read = async (request: Request, rules: StartRules) => {
    // Project 0: the project is unknown until the body is read.
    using held = inflight.holding(0);
    return await readFields(request, jsonBytesMax, held.reserve, rules);
  };
  const start = ({ rules, answer, parse }: Contract) =>
    async function handle({ request }: { request: Request }) {
      const fields = parse(await read(request, rules));
      const context = {
        address: clients.address(request),
        network: clients.network(request),
        userAgent: request.headers.get("user-agent"),
      };
      return await answer(await starts.start(fields, context, rules));
    };
  const mobile = { answer: answers.mobile, parse: parseMobileStart };
  const web = { rules: WEB_RULES, answer: answers.web, parse: parseWebStart };
  const analytics = {
    rules: ANALYTICS_RULES,
    answer: answers.analytics,
    parse: parseAnalyticsStart,
  };
  return new Elysia({
    name: "session-starts",
    ...mount({ audience: "sdk", tag: "SDK", errors: renderError }),
  })
    .post("/v1/ios/start", start({ rules: IOS_RULES, ...mobile }), {
      parse: "none",
      detail: startDetail("Start a session", IOS_EXAMPLE),
    })
    .post("/v1/mobile/start", start({ rules: MOBILE_RULES, ...mobile }), {
      parse: "none",
      detail: startDetail("Start a session (current SDKs)", MOBILE_EXAMPLE, 426),
    })
    .post("/v1/web/start", start(web), {
      parse: "none",
      detail: {
        summary: "Start a session of a web page",
        description: "A start with a valid token goes on with its session, unless `reset` is true.",
        ...jsonBody(WebBody, WEB_EXAMPLE),
        responses: { 200: json(WEB_STARTED_EXAMPLE), ...errors(403, 404, 422, 426) },
      },
    })
    .post("/v1/sdk/start", start(analytics), {
      parse: "none",
      detail: {
        summary: "Start a session of product analytics",
        ...jsonBody(AnalyticsBody, ANALYTICS_EXAMPLE),
        responses: { 200: json({ token: COMMON_EXAMPLE.token }), ...errors(404) },
      },
    });
}

export type SessionRoutesDeps = {
  sql: Sql;
  /** Returns a summary of a session's stored batches and images. */
  contents: (sessionId: bigint) => Promise<{ batches: object; images: number }>;
};

export function sessionRoutes({ sql, contents }: SessionRoutesDeps) {
  return new Elysia({
    name: "sessions",
    ...mount({ audience: "backend", tag: "Reading", errors: renderError }),
  })
    .get("/v1/sessions", ({ request }) => listSessions(sql, SessionQuery.of(request)), {
      detail: {
        summary: "List a project's sessions, newest first",
        description:
          "Filters can be combined. What batches say about a session is listed within three seconds: `events` is the number of messages, `durationMs` the time from the first to the last one by the client's clock, `lastAt` when the last batch was received, `page` the first page. `userID` is the latest one.",
        parameters: queryParameters(SessionQuery),
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

/** Reads a body. Refuses one that cannot be read as the contract says. */
async function readFields(
  request: Request,
  bytesMax: number,
  hold: (bytes: number) => void,
  { unreadable }: StartRules,
): Promise<unknown> {
  let content: Uint8Array;
  try {
    content = await readContent(request, bytesMax, hold);
  } catch (error) {
    if (error instanceof AppError && (error.code === "too_large" || error.code === "invalid"))
      throw new AppError(unreadable, error.message, { cause: error });
    throw error;
  }
  // Some devices name themselves in another encoding than UTF-8; their sessions count, too.
  return decodeJson(content, { isLenient: true });
}

function startDetail(summary: string, example: object, ...statuses: number[]) {
  return {
    summary,
    ...jsonBody(MobileBody, example),
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

const COMMON_EXAMPLE = {
  token: "qrmzm0576vpj.0.mgjaueww.BLFF5p9sXZy6cpBNFGpcH4Ld3SK1GKh714ifrJ4SQpP3",
  sessionID: "3523215360000131335",
  userUUID: "5f0c0f0e-3a51-4a57-9d4b-6f4d6d1c1b1a",
  beaconSizeLimit: 1_000_000,
  projectID: "1",
  framesSupport: true,
};

const STARTED_EXAMPLE = {
  ...COMMON_EXAMPLE,
  imagesHashList: ["9f86d081884c7d65"],
  quality: "low",
  fps: 1,
};

const WEB_EXAMPLE = {
  projectKey: "Vd4Xk0pSm2Qz7Hn1Tb5y",
  trackerVersion: "19.0.1",
  userUUID: null,
  timestamp: 1_760_000_000_000,
  timezone: "UTC+02:00",
  width: 1920,
  height: 1080,
};

const WEB_STARTED_EXAMPLE = {
  ...COMMON_EXAMPLE,
  delay: 12,
  startTimestamp: 1_760_000_000_012,
  timestamp: 0,
  userOS: "Linux",
  userDevice: "",
  userBrowser: "Chrome",
  userCountry: "UN",
  userState: "",
  userCity: "",
  compressionThreshold: 20_000,
  canvasEnabled: false,
  canvasQuality: "low",
  canvasFPS: 1,
  protocolVersion: 2,
  assistOnly: false,
  features: { "feature-flags": false, "usability-test": false },
};

const ANALYTICS_EXAMPLE = {
  projectKey: "Vd4Xk0pSm2Qz7Hn1Tb5y",
  sdk_version: "19.0.1",
  os: "Linux",
  browser: "Chrome",
  screen_width: 1920,
  screen_height: 1080,
  user_id: "user-42",
};

const SESSION_EXAMPLE = {
  sessionID: "3523215360000131335",
  projectId: 1,
  recorded: true,
  startedAt: "2025-10-09T08:53:20.000Z",
  lastAt: "2025-10-09T08:55:20.000Z",
  durationMs: 118_250,
  events: 421,
  clicks: 12,
  errors: 0,
  pageViews: 3,
  page: "Basket",
  platform: "ios",
  userID: "user-42",
  metadata: { plan: "pro" },
  userDevice: "iPhone 14 Pro",
  userCountry: "UN",
};
