import { Elysia, t } from "elysia";

import { errors, json } from "../platform/http/docs.ts";
import { renderError } from "../platform/errors.ts";
import { mount } from "../platform/http/policy.ts";
import { checkPreconditions } from "../platform/http/preconditions.ts";
import { selectRange } from "../platform/http/range.ts";
import { Lost } from "../platform/objects/read-faults.ts";
import { INLINE_BYTES_MAX, begunStream, gathered, streamOf } from "../platform/streams.ts";
import { type ReplayCoding, codingFor, encoded } from "./coding.ts";
import { type ReplayFile } from "./replay-file.ts";
import { type Replays } from "./service.ts";

export type ReplayRoutesDeps = {
  replays: Replays;
  /** Throws 404 unless the text names a session. */
  findSession: (sessionID: string) => Promise<bigint>;
};

export function replayRoutes({ replays, findSession }: ReplayRoutesDeps) {
  return new Elysia({
    name: "replays",
    ...mount({ audience: "backend", tag: "Reading", errors: renderError }),
  })
    .get(
      "/v1/sessions/:sessionID/replay",
      async ({ params }) => {
        const files = await replays.list(await findSession(params.sessionID));
        return { files: files.map(({ name, bytes }) => ({ name, bytes: bytes ?? null })) };
      },
      {
        detail: {
          summary: "List a session's replay files",
          description:
            "The files from which OpenReplay's player shows the session. `bytes` is null if only composing the file tells its length.",
          responses: {
            200: json({
              files: [
                { name: "dom.mobs", bytes: 81_920 },
                { name: "dom.mobe", bytes: 245_760 },
                { name: "devtools.mob", bytes: 20_480 },
                { name: "1760000000000_42.webp.frames", bytes: 102_400 },
              ],
            }),
            ...errors(404),
          },
        },
      },
    )
    .get(
      "/v1/sessions/:sessionID/replay/:file",
      async ({ params, query, request }) => {
        const file = await replays.find(await findSession(params.sessionID), params.file);
        return await serve(request, file, query);
      },
      {
        query: t.Object({
          skipMissing: t.Optional(
            t.Boolean({
              problem: () => "must be true or false",
              description:
                "omits what is missing from the object store or damaged; the answer then has no ETag and no ranges",
            }),
          ),
        }),
        detail: {
          summary: "Compose a replay file, whole or a range",
          description:
            "Composed of what is stored at this moment, also while the session runs. zstd or gzip if `Accept-Encoding` has them. A `Range` is answered without a content coding, if the file's length is known. " +
            "410 if bytes at its beginning are missing from the object store or damaged; later the connection breaks there, as it does if the store fails. 503 while the store is unavailable.",
          responses: {
            200: { description: "The file", content: { "application/octet-stream": {} } },
            206: { description: "The range" },
            304: { description: "Not modified" },
            ...errors(404, 406, 410, 412, 416),
          },
        },
      },
    );
}

type Query = { skipMissing?: boolean };

async function serve(
  request: Request,
  file: ReplayFile,
  { skipMissing = false }: Query,
): Promise<Response> {
  // Ranges are those of the file, not of what it is compressed to.
  const plain = request.headers.has("range") && file.bytes !== undefined && !skipMissing;
  const coding = codingFor(request, { plain });
  const headers = new Headers({
    // The session may still send more.
    "cache-control": "private, no-cache",
    // The bytes come from a client: no browser may run them.
    "content-security-policy": "default-src 'none'; sandbox",
    "x-content-type-options": "nosniff",
    vary: "accept-encoding",
  });
  const { status, start, end } = select(request, file, { coding, skipMissing }, headers);
  if (status === 304) return new Response(null, { status, headers });
  headers.set("content-type", "application/octet-stream");
  if (coding !== "identity") headers.set("content-encoding", coding);
  const length = end === undefined ? undefined : end - (start ?? 0);
  const chunks = file.read({ skipMissing, ...(end !== undefined && { start, end }) });
  if (request.method === "HEAD") {
    if (length !== undefined) headers.set("content-length", String(length));
    // Without a body, Bun would say that it has 0 bytes.
    return new Response(length === undefined ? streamOf(chunks) : null, { status, headers });
  }
  try {
    const body =
      length !== undefined && length <= INLINE_BYTES_MAX
        ? Buffer.concat(await Array.fromAsync(chunks))
        : await begunStream(encoded(gathered(chunks), coding));
    return new Response(body, { status, headers });
  } catch (error) {
    throw error instanceof Lost ? error.toAppError("the file") : error;
  }
}

/** Returns what to answer. The end is undefined if the length of the answer is unknown. */
function select(
  request: Request,
  { bytes, tag }: ReplayFile,
  { coding, skipMissing }: { coding: ReplayCoding; skipMissing: boolean },
  headers: Headers,
): { status: 200 | 206 | 304; start?: number; end?: number } {
  if (skipMissing) return { status: 200 };
  const isPlain = coding === "identity";
  const etag = isPlain ? `"${tag}"` : `"${tag}-${coding}"`;
  // Two states of a session may have the same second.
  const validators = { etag, lastModifiedMs: Number.NaN };
  if (isPlain && bytes !== undefined)
    return selectRange(request, { bytes, ...validators }, headers);
  headers.set("etag", etag);
  return { status: checkPreconditions(request, validators) === "proceed" ? 200 : 304 };
}
