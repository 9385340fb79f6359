import { Elysia, t } from "elysia";

import { type SegmentReader } from "../log/segment-reader.ts";
import { type Sql } from "../platform/database/database.ts";
import { errors, formBody, json } from "../platform/http/docs.ts";
import { renderError } from "../platform/errors.ts";
import { selectRange } from "../platform/http/range.ts";
import { Lost } from "../platform/objects/read-faults.ts";
import { mount } from "../platform/http/policy.ts";
import { INLINE_BYTES_MAX, begunStream } from "../platform/streams.ts";
import { decimal, ruled, text } from "../platform/schema.ts";
import { parseDecimal } from "../platform/whole-numbers.ts";
import { type SessionToken } from "../sessions/token.ts";
import { type FormRules, UploadFields } from "./form.ts";
import { type StoredImage, findImage, imageBytes, listImages } from "./reading.ts";
import { type Images } from "./service.ts";

// Timeout for reading an image that is sent in one piece; a longer image is streamed as it is read.
const INLINE_MS_MAX = 10_000;

export type UploadRoutesDeps = { images: Images; authorize: (request: Request) => SessionToken };

export function uploadRoutes({ images, authorize }: UploadRoutesDeps) {
  const upload = async (request: Request, rules: FormRules = {}) => {
    await images.upload(authorize(request), request, rules);
    return new Response();
  };
  return new Elysia({
    name: "image-uploads",
    ...mount({
      audience: "sdk",
      tag: "SDK",
      credential: "session",
      errors: renderError,
      acknowledges: "images",
      bare: true,
    }),
  })
    .post("/v1/ios/images", ({ request }) => upload(request, { projectRequired: true }), {
      parse: "none",
      detail: uploadDetail("Upload images named by their hashes"),
    })
    .post("/v1/mobile/images", ({ request }) => upload(request), {
      parse: "none",
      detail: uploadDetail("Upload screenshots (current SDKs)"),
    })
    .post("/v1/web/images", ({ request }) => upload(request, { isCanvas: true }), {
      parse: "none",
      detail: uploadDetail("Upload images of canvas elements"),
    });
}

export type ImageRoutesDeps = {
  sql: Sql;
  reader: SegmentReader;
  /** Throws 404 unless the text names a session. */
  findSession: (sessionID: string) => Promise<bigint>;
};

export function imageRoutes({ sql, reader, findSession }: ImageRoutesDeps) {
  return new Elysia({
    name: "images",
    ...mount({ audience: "backend", tag: "Reading", errors: renderError }),
  })
    .get(
      "/v1/sessions/:sessionID/images",
      async ({ params, query }) =>
        await listImages(sql, await findSession(params.sessionID), query),
      {
        query: t.Object({
          limit: decimal(1, 1000, { default: 100 }),
          cursor: t.Optional(text(1, 512, { description: "`nextCursor` of the previous page" })),
        }),
        detail: {
          summary: "List the images that a session sent",
          description:
            "Different bytes under one name are listed as separate images, told apart by `sha256`. Images that the previous version stored have null there until they are hashed.",
          responses: { 200: json({ images: [IMAGE_EXAMPLE], nextCursor: null }), ...errors(404) },
        },
      },
    )
    .get(
      "/v1/images/:projectId/:hash",
      async ({ params, query, request }) => {
        const image = await findImage(sql, params.projectId, params.hash, query);
        return await serve(request, { sql, reader }, image, {
          isFixed: query.session === undefined,
        });
      },
      {
        params: t.Object({
          projectId: decimal(0, 2 ** 31 - 1),
          hash: text(1, 255),
        }),
        query: t.Object({
          session: t.Optional(SESSION),
          sha256: t.Optional(
            t.String({
              pattern: "^[0-9a-fA-F]{64}$",
              problem: () => "must be 64 hexadecimal digits",
              description: "selects the image with these bytes",
            }),
          ),
        }),
        detail: {
          summary: "Read an image's bytes, whole or a range",
          description:
            "Sessions may have sent different bytes under one name: without `session` or `sha256` the image stored first is returned. " +
            "410 if its bytes are missing from the object store or damaged, 503 while the store is unavailable; an error after the response has begun closes the connection.",
          responses: {
            200: { description: "The file", content: { "image/png": {} } },
            206: { description: "The range" },
            304: { description: "Not modified" },
            ...errors(404, 410, 412, 416),
          },
        },
      },
    );
}

const SESSION_TEXT = text(1, 255);
const SESSION = t
  .Transform(
    ruled<string>(
      {
        type: "string",
        pattern: "^\\d{1,19}$",
        format: "int64",
        description: "selects what this session sent last under the name",
      },
      (value) =>
        parseDecimal(String(value)) === undefined
          ? (SESSION_TEXT.problem(value) ?? "must be the id of a session")
          : undefined,
    ),
  )
  .Decode(BigInt)
  .Encode(String);

async function serve(
  request: Request,
  source: Pick<ImageRoutesDeps, "sql" | "reader">,
  image: StoredImage,
  { isFixed }: { isFixed: boolean },
): Promise<Response> {
  const etag = `"${image.sha256 ?? `${image.bytes.toString(16)}-${image.crc32}`}"`;
  const headers = new Headers({
    "content-type": image.contentType,
    // A session can send other bytes under the same name later.
    "cache-control": isFixed ? "private, immutable, max-age=2628000" : "private, no-cache",
    // Type and bytes come from a client: no browser may run them.
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
  const bytes = imageBytes(source, image, { start, end, signal });
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
  sha256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
  storedAt: "2025-10-09T08:53:21.000Z",
};

function uploadDetail(summary: string) {
  return {
    summary,
    description:
      "Each file's name is its hash. Every session reads back the bytes that it sent, even if another session sent different bytes under the same name; equal bytes are stored once. Archives (`.gz`, `.tar.gz`, `type=frames`) are stored as sent.",
    ...formBody(UploadFields, "file"),
    responses: {
      200: { description: "Every file is stored" },
      ...errors(403, 404, 422),
    },
  };
}
