import { Elysia, t } from "elysia";

import { type SegmentReader } from "../ingest/segment-reader.ts";
import { type Sql } from "../platform/database.ts";
import { forSdks } from "../platform/cors.ts";
import { errors, json } from "../platform/docs.ts";
import { integer, text } from "../platform/parameters.ts";
import { selectRange } from "../platform/range.ts";
import { Lost } from "../platform/read-faults.ts";
import { type ServerKeys } from "../platform/server-keys.ts";
import { INLINE_BYTES_MAX, begunStream } from "../platform/streams.ts";
import { type SessionToken } from "../sessions/token.ts";
import { type StoredImage, findImage, imageBytes, listImages } from "./reading.ts";
import { type Images } from "./service.ts";

// What is sent in one piece may take as long to read; a long image is sent as it is read.
const INLINE_MS_MAX = 10_000;

export type UploadRoutesDeps = { images: Images; authorize: (request: Request) => SessionToken };

export function uploadRoutes({ images, authorize }: UploadRoutesDeps) {
  const upload = async (request: Request, projectRequired: boolean) => {
    await images.upload(authorize(request), request, projectRequired);
    return new Response();
  };
  return new Elysia({ name: "image-uploads" })
    .post("/v1/ios/images", ({ request }) => upload(request, true), {
      parse: "none",
      detail: uploadDetail("Push images, named by their hashes"),
    })
    .post("/v1/mobile/images", ({ request }) => upload(request, false), {
      parse: "none",
      detail: uploadDetail("Push screenshots, as today's SDKs do"),
    });
}

export type ImageRoutesDeps = {
  sql: Sql;
  reader: SegmentReader;
  serverKeys: ServerKeys;
  /** Throws 404 unless the text names a session. */
  findSession: (sessionID: string) => Promise<bigint>;
};

export function imageRoutes({ sql, reader, serverKeys, findSession }: ImageRoutesDeps) {
  return new Elysia({ name: "images" })
    .onTransform(({ request }) => serverKeys.check(request))
    .get(
      "/v1/sessions/:sessionID/images",
      async ({ params, query }) =>
        await listImages(sql, await findSession(params.sessionID), query),
      {
        query: t.Object({
          limit: integer("limit", 1, 1000, { default: 100 }),
          cursor: t.Optional(text("cursor", 512)),
        }),
        detail: {
          tags: ["Reading"],
          summary: "The images that a session was the first to store",
          security: [{ serverKey: [] }],
          responses: {
            200: json({ images: [IMAGE_EXAMPLE], nextCursor: null }),
            ...errors(400, 403, 404, 503),
          },
        },
      },
    )
    .get(
      "/v1/images/:projectId/:hash",
      async ({ params, request }) =>
        await serve(request, reader, await findImage(sql, params.projectId, params.hash)),
      {
        params: t.Object({
          projectId: integer("projectId", 0, 2 ** 31 - 1),
          hash: text("hash", 255),
        }),
        detail: {
          tags: ["Reading"],
          summary: "An image's bytes, whole or a range",
          description:
            "410 when its bytes are gone from the store or damaged, 503 while the store is away; what fails later breaks the connection off.",
          security: [{ serverKey: [] }],
          responses: {
            200: { description: "The file", content: { "image/png": {} } },
            206: { description: "The range" },
            304: { description: "Not modified" },
            ...errors(400, 403, 404, 410, 412, 416, 503),
          },
        },
      },
    );
}

async function serve(
  request: Request,
  reader: SegmentReader,
  image: StoredImage,
): Promise<Response> {
  // The bytes under a name never change.
  const etag = `"${image.bytes.toString(16)}-${image.crc32}"`;
  const headers = new Headers({
    "content-type": image.contentType,
    "cache-control": "private, immutable, max-age=2628000",
    // A client named the type and made the bytes: no browser may run them.
    "content-security-policy": "default-src 'none'; sandbox",
    "x-content-type-options": "nosniff",
  });
  const lastModifiedMs = Math.floor(image.storedAt.getTime() / 1000) * 1000;
  const { status, start, end } = selectRange(
    request,
    { bytes: image.bytes, etag, lastModifiedMs },
    headers,
  );
  if (status === 304) return new Response(null, { status, headers });
  const isInline = end - start <= INLINE_BYTES_MAX;
  const signal = isInline ? AbortSignal.timeout(INLINE_MS_MAX) : undefined;
  const bytes = imageBytes(reader, image, { start, end, signal });
  try {
    const body = isInline ? Buffer.concat(await Array.fromAsync(bytes)) : await begunStream(bytes);
    return new Response(body, { status, headers });
  } catch (error) {
    throw error instanceof Lost ? error.toAppError("the image") : error;
  }
}

const IMAGE_EXAMPLE = {
  name: "9f86d081884c7d65",
  kind: "image",
  contentType: "image/png",
  bytes: 20_480,
  crc32: "d87f7e0c",
  storedAt: "2025-10-09T08:53:21.000Z",
};

function uploadDetail(summary: string) {
  return {
    ...forSdks(),
    tags: ["SDK"],
    summary,
    description:
      "Each file's name is its hash and its key in the project; a stored name is stored once. Archives (`.gz`, `.tar.gz`, `type=frames`) are kept as they are sent.",
    security: [{ session: [] }],
    requestBody: {
      required: true,
      content: {
        "multipart/form-data": {
          schema: {
            type: "object" as const,
            properties: {
              projectID: { type: "integer" as const, example: 7_286_977_268_806_823 },
              file: { type: "string" as const, format: "binary" },
            },
          },
        },
      },
    },
    responses: {
      200: { description: "Every file is stored" },
      ...errors(400, 401, 403, 404, 408, 413, 415, 422, 429, 503),
    },
  };
}
