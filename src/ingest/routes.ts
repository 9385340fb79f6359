import { Elysia, t } from "elysia";
import Negotiator from "negotiator";

import { errors, json } from "../platform/http/docs.ts";
import { AppError, renderError } from "../platform/errors.ts";
import { mount } from "../platform/http/policy.ts";
import { Lost } from "../platform/objects/read-faults.ts";
import { begunStream } from "../platform/streams.ts";
import { type Grace } from "../sessions/bearer.ts";
import { type SessionToken } from "../sessions/token.ts";
import { type BatchFormat, type Batches } from "./batches.ts";
import { type Ingest } from "./service.ts";
import { ANALYTICS, MOBILE, WEB } from "./wire-format.ts";

const FORMATS: BatchFormat[] = [
  "application/json",
  "application/octet-stream",
  "application/msgpack",
];

export type IngestRoutesDeps = {
  ingest: Ingest;
  /** Returns the token of a data request. Throws 401. */
  authorize: (request: Request, grace?: Grace) => SessionToken;
};

export function ingestRoutes({ ingest, authorize }: IngestRoutesDeps) {
  const accept = async (request: Request, late: boolean) => {
    const token = authorize(request, late ? "late" : "none");
    await ingest.accept(token, request, MOBILE, late);
    return new Response();
  };
  const acceptWeb = async (request: Request) => {
    const token = authorize(request, "just_expired");
    try {
      await ingest.accept(token, request, WEB);
    } finally {
      // The data is taken, but the tracker must start anew, whatever became of the data.
      if (token.kind === "just_expired") authorize(request);
    }
    return new Response();
  };
  const acceptAnalytics = async (request: Request) => {
    await ingest.accept(authorize(request), request, ANALYTICS);
    return new Response();
  };
  return new Elysia({
    name: "ingest",
    ...mount({
      audience: "sdk",
      tag: "SDK",
      credential: "session",
      errors: renderError,
      acknowledges: "batch",
      bare: true,
    }),
  })
    .post("/v1/ios/append", ({ request }) => accept(request, false), {
      parse: "none",
      detail: batchDetail("Upload a message batch"),
    })
    .post("/v1/ios/i", ({ request }) => accept(request, false), {
      parse: "none",
      detail: batchDetail("Upload a message batch (short name)"),
    })
    .post("/v1/ios/late", ({ request }) => accept(request, true), {
      parse: "none",
      detail: batchDetail("Upload a batch that a crash delayed"),
    })
    .post("/v1/mobile/i", ({ request }) => accept(request, false), {
      parse: "none",
      detail: batchDetail("Upload a message batch (current SDKs)"),
    })
    .post("/v1/mobile/late", ({ request }) => accept(request, true), {
      parse: "none",
      detail: batchDetail("Upload a late batch (current SDKs)"),
    })
    .post("/v1/web/i", ({ request }) => acceptWeb(request), {
      parse: "none",
      detail: webDetail(),
    })
    .post("/v1/sdk/i", ({ request }) => acceptAnalytics(request), {
      parse: "none",
      detail: batchDetail("Upload events of product analytics, as JSON", ANALYTICS_EXAMPLE),
    });
}

export type BatchRoutesDeps = {
  batches: Batches;
  /** Throws 404 unless the text names a session. */
  findSession: (sessionID: string) => Promise<bigint>;
};

export function batchRoutes({ batches, findSession }: BatchRoutesDeps) {
  return new Elysia({
    name: "batches",
    ...mount({ audience: "backend", tag: "Reading", errors: renderError }),
  }).get(
    "/v1/sessions/:sessionID/batches",
    async ({ params, query, request }) => {
      const format = negotiate(request);
      const id = await findSession(params.sessionID);
      const { quarantined = false, skipMissing = false } = query;
      const encoded = batches.encode(id, format, { quarantined, skipMissing });
      const body = await begunStream(encoded, (error) => error instanceof Lost);
      return new Response(body, { headers: { "content-type": format } });
    },
    {
      query: t.Object({
        quarantined: t.Optional(
          t.Boolean({
            problem: () => "must be true or false",
            description: "returns the batches with malformed framing instead of the others",
          }),
        ),
        skipMissing: t.Optional(
          t.Boolean({
            problem: () => "must be true or false",
            description:
              "omits missing and damaged batches from a binary response, which otherwise breaks off at the first one",
          }),
        ),
      }),
      detail: {
        summary: "Read a session's batches in commit order",
        description:
          "The format follows `Accept`. JSON has decoded messages, and of web batches the header, which says page and url; a message of an unknown type has its bytes in `body`. `kind` is `mobile`, or the stream of the web tracker: `player`, `assets`, `devtools`, `analytics`, or `web` for all of them in one; or `sdk`, whose batches are JSON, and have it in `json` instead of messages. `application/octet-stream` has the batches as the client encoded them, without any content coding, each after its length as a little-endian uint32. `application/msgpack` has one map per batch, with its bytes in `body`. If batches are missing from the object store or damaged, JSON has one entry `missing` for each run of them, with the times when they were received; a binary response breaks off there, unless `skipMissing=true` omits them. 503 while the object store is unavailable; if it fails during the response, the connection breaks.",
        responses: {
          200: json({
            batches: [
              {
                receivedAt: "2025-10-09T08:53:21.000Z",
                late: false,
                kind: "mobile",
                messages: [
                  {
                    index: 1,
                    type: 100,
                    name: "Click",
                    timestamp: 1_760_000_000_005,
                    fields: { label: "OK", x: 10, y: 20 },
                  },
                ],
              },
              {
                missing: {
                  batches: 3,
                  from: "2025-10-09T08:53:26.000Z",
                  to: "2025-10-09T08:53:36.000Z",
                },
              },
            ],
          }),
          ...errors(404, 406),
        },
      },
    },
  );
}

function negotiate(request: Request): BatchFormat {
  const negotiator = new Negotiator({
    headers: { accept: request.headers.get("accept") ?? undefined },
  });
  const accepted = negotiator.mediaType(FORMATS);
  const format = FORMATS.find((one) => one === accepted);
  if (format === undefined)
    throw new AppError("not_acceptable", `only ${FORMATS.join(", ")} are available`);
  return format;
}

const STORED_ONCE =
  "Accepts `Content-Encoding` gzip, deflate, br and zstd, also combined. 200 means that the batch is durable. A batch that is sent again is stored once.";

function webDetail() {
  const query = { in: "query" as const, schema: { type: "string" as const } };
  return {
    ...batchDetail("Upload a batch of the web tracker"),
    description: `${STORED_ONCE} With \`DataType: visual\` the body is two batches, and \`split\` the length of the first one in bytes without any content coding; both are stored or none. An empty body is accepted. A body that cannot be inflated is 413. The batch of a token that expired in the last 30 seconds is stored, too, and the answer is 401.`,
    parameters: [
      {
        ...query,
        name: "batch",
        description: "description of the batch by the tracker; not read",
      },
      { ...query, name: "split", description: "required with `DataType: visual`" },
      {
        in: "header" as const,
        name: "DataType",
        schema: {
          type: "string" as const,
          enum: ["player", "assets", "devtools", "analytics", "visual"],
        },
        description: "only `visual` makes a difference: batches say themselves what they are",
      },
    ],
  };
}

const ANALYTICS_EXAMPLE = '{"events":[{"name":"signed up","timestamp":1760000000000}]}';

function batchDetail(summary: string, example = "<binary encoded messages>") {
  return {
    summary,
    description: STORED_ONCE,
    requestBody: {
      required: true,
      content: {
        "application/octet-stream": {
          schema: { type: "string" as const, format: "binary" },
          example,
        },
      },
    },
    responses: { 200: { description: "Stored" } },
  };
}
