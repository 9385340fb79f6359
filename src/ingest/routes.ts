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
  /** The token of a data request; with `late` an expired one passes. Throws 401. */
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
    }),
  })
    .post("/v1/ios/append", ({ request }) => accept(request, false), {
      parse: "none",
      detail: batchDetail("Push a message batch"),
    })
    .post("/v1/ios/i", ({ request }) => accept(request, false), {
      parse: "none",
      detail: batchDetail("Push a message batch (short name)"),
    })
    .post("/v1/ios/late", ({ request }) => accept(request, true), {
      parse: "none",
      detail: batchDetail("Push a batch that a crash had kept back"),
    })
    .post("/v1/mobile/i", ({ request }) => accept(request, false), {
      parse: "none",
      detail: batchDetail("Push a message batch, as today's SDKs do"),
    })
    .post("/v1/mobile/late", ({ request }) => accept(request, true), {
      parse: "none",
      detail: batchDetail("Push a late batch, as today's SDKs do"),
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
            error: "quarantined must be true or false",
            description: "the batches whose framing was malformed, instead of the others",
          }),
        ),
        skipMissing: t.Optional(
          t.Boolean({
            error: "skipMissing must be true or false",
            description:
              "leaves out of a binary answer what is gone from the store or damaged, instead of breaking off there",
          }),
        ),
      }),
      detail: {
        summary: "A session's batches in commit order",
        description:
          "By `Accept`: JSON with decoded messages; `application/octet-stream`: the batches as the client encoded them, after any content coding, each behind its length as a little-endian uint32; `application/msgpack`: one map a batch, its bytes in `body`. Batches that are gone from the store or damaged: JSON has one entry `missing` for those that are beside each other, with the times of their receipt; a binary answer is broken off there, unless `skipMissing=true` leaves them out. 503 while the store is away, and a broken connection when it goes away later.",
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
          ...errors(400, 403, 404, 406, 503),
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
    throw new AppError("not_acceptable", `only ${FORMATS.join(", ")} can be had`);
  return format;
}

function batchDetail(summary: string) {
  return {
    summary,
    description:
      "With any `Content-Encoding` of gzip, deflate, br and zstd. 200 means that the batch is durable; the same bytes again are stored once.",
    requestBody: {
      required: true,
      content: {
        "application/octet-stream": {
          schema: { type: "string" as const, format: "binary" },
          example: "<binary encoded messages>",
        },
      },
    },
    responses: { 200: { description: "Stored" }, ...errors(400, 401, 408, 413, 429, 503) },
  };
}
