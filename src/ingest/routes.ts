import { Elysia, t } from "elysia";
import Negotiator from "negotiator";

import { errors, json } from "../platform/http/docs.ts";
import { AppError, renderError } from "../platform/errors.ts";
import { mount } from "../platform/http/policy.ts";
import { Lost } from "../platform/objects/read-faults.ts";
import { begunStream } from "../platform/streams.ts";
import { type SessionToken } from "../sessions/token.ts";
import { type BatchFormat, type Batches } from "./batches.ts";
import { type Ingest } from "./service.ts";

const FORMATS: BatchFormat[] = [
  "application/json",
  "application/octet-stream",
  "application/msgpack",
];

export type IngestRoutesDeps = {
  ingest: Ingest;
  /** Returns the token of a data request; with `late` accepts an expired one. Throws 401. */
  authorize: (request: Request, late: boolean) => SessionToken;
};

export function ingestRoutes({ ingest, authorize }: IngestRoutesDeps) {
  const accept = async (request: Request, late: boolean) => {
    await ingest.accept(authorize(request, late), request, late);
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
          "The format follows `Accept`. JSON has decoded messages. `application/octet-stream` has the batches as the client encoded them, without any content coding, each after its length as a little-endian uint32. `application/msgpack` has one map per batch, with its bytes in `body`. If batches are missing from the object store or damaged, JSON has one entry `missing` for each run of them, with the times when they were received; a binary response breaks off there, unless `skipMissing=true` omits them. 503 while the object store is unavailable; if it fails during the response, the connection breaks.",
        responses: {
          200: json({
            batches: [
              {
                receivedAt: "2025-10-09T08:53:21.000Z",
                late: false,
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

function batchDetail(summary: string) {
  return {
    summary,
    description:
      "Accepts `Content-Encoding` gzip, deflate, br and zstd, also combined. 200 means that the batch is durable. A batch that is sent again is stored once.",
    requestBody: {
      required: true,
      content: {
        "application/octet-stream": {
          schema: { type: "string" as const, format: "binary" },
          example: "<binary encoded messages>",
        },
      },
    },
    responses: { 200: { description: "Stored" } },
  };
}
