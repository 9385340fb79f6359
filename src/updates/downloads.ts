import { Elysia } from "elysia";

import { errors } from "../platform/http/docs.ts";
import { CONDITIONAL_HEADERS, mount } from "../platform/http/policy.ts";
import { type Metrics } from "../platform/telemetry/metrics.ts";
import { type ObjectStore } from "../platform/objects/objects.ts";
import { renderPlainText } from "../wire/wemesse.ts";
import { type Validators } from "../platform/http/preconditions.ts";
import { selectRange } from "../platform/http/range.ts";
import { Lost, type ReadFaults } from "../platform/objects/read-faults.ts";
import { INLINE_BYTES_MAX } from "../platform/streams.ts";
import { BuildCache } from "./build-cache.ts";
import { type Build, integrityHeaders, objectKey } from "./build.ts";
import { type Offers } from "./offers.ts";
import { isForStore } from "./redirect.ts";

const LINK_SECONDS = 3600;

export type DownloadRoutesDeps = {
  offers: Offers;
  objects: ObjectStore;
  metrics: Metrics;
  faults: ReadFaults;
  /** Redirects clients to presigned links of the object store, if it has such links. */
  redirect: boolean;
  /** Bytes of builds that may be held in memory. */
  cacheBytes: number;
};

/** Serves the builds themselves, under all forms of their links. */
export function downloadRoutes(deps: DownloadRoutesDeps) {
  const { offers, objects, metrics, faults, redirect, cacheBytes } = deps;
  const cache = new BuildCache(objects, (build) => offers.isOffered(build), cacheBytes);
  const serve = async (request: Request, wanted: Parameters<Offers["find"]>[0]) => {
    const build = await offers.find(wanted);
    const changedAt = wanted.version === undefined ? build.nameChangedAt : build.publishedAt;
    const file = { build, etag: `"${build.sha256}"`, lastModifiedMs: changedAt.getTime() };
    const isHead = request.method === "HEAD";
    // A presigned link is valid for GET alone.
    if (!redirect || objects.link === undefined || isHead || !isForStore(request, file))
      return await send(request, isHead, { objects, metrics, faults, cache }, file);
    metrics.updateDownloads.inc({ kind: "redirected" });
    return await redirectTo(objects.link.bind(objects), build);
  };
  return new Elysia({
    name: "downloads",
    ...mount({
      audience: "app",
      tag: "Updates",
      errors: renderPlainText,
      headers: [...CONDITIONAL_HEADERS, "x-device-id"],
    }),
  })
    .get("/source/:first", ({ request, params }) => serve(request, { name: params.first }), {
      detail: downloadDetail("Download the newest build with that file name", [FILE]),
    })
    .get(
      "/source/:first/:second",
      ({ request, params }) =>
        serve(request, { targetAbi: "", version: params.first, name: params.second }),
      {
        detail: downloadDetail("Download a build without an ABI, by its version and file name", [
          VERSION,
          FILE,
        ]),
      },
    )
    .get(
      "/source/:first/:second/:third",
      ({ request, params }) =>
        serve(request, { targetAbi: params.first, version: params.second, name: params.third }),
      {
        detail: downloadDetail("Download a build by its ABI, version and file name", [
          ABI,
          VERSION,
          FILE,
        ]),
      },
    );
}

const RANGE = {
  name: "Range",
  in: "header" as const,
  description: "a part of the file, to resume a download",
  example: "bytes=1048576-",
  schema: { type: "string" as const },
};

type BuildFile = Validators & { build: Build };
type Sending = Pick<DownloadRoutesDeps, "objects" | "metrics" | "faults"> & { cache: BuildCache };

async function send(
  request: Request,
  isHead: boolean,
  { objects, metrics, faults, cache }: Sending,
  { build, ...validators }: BuildFile,
): Promise<Response> {
  const headers = new Headers({
    "content-type": Bun.file(build.name).type,
    "content-disposition": "attachment",
    "x-content-type-options": "nosniff",
    // The version may be published again under the same name.
    "cache-control": "no-cache",
    ...integrityHeaders(build),
  });
  const { bytes, objectId } = build;
  const { status, start, end } = selectRange(request, { bytes, ...validators }, headers);
  if (status === 304) return new Response(null, { status, headers });
  const key = objectKey(objectId);
  try {
    if (isHead) {
      // Check the last byte only: if it exists, all do.
      await objects.read(key, Math.max(0, bytes - 1), bytes);
      headers.set("content-length", String(end - start));
      return new Response(null, { status, headers });
    }
    metrics.updateDownloads.inc({ kind: status === 206 ? "range" : "whole" });
    metrics.updateDownloadBytes.inc(end - start);
    // A short range is sent in one piece anyway, so it is not worth reading the whole build.
    const whole = end - start > INLINE_BYTES_MAX ? await cache.whole(build) : undefined;
    const body = whole?.slice(start, end) ?? (await objects.body(key, start, end));
    return new Response(body, { status, headers });
  } catch (error) {
    const lost = Lost.from(error, key);
    if (lost === undefined) throw faults.away(error, key);
    faults.lost(lost, { build: build.id });
    throw lost.toAppError("the build");
  }
}

async function redirectTo(link: NonNullable<ObjectStore["link"]>, build: Build): Promise<Response> {
  const { name, objectId } = build;
  const location = await link(objectKey(objectId), { seconds: LINK_SECONDS, filename: name });
  return new Response(null, {
    status: 302,
    headers: { location, "cache-control": "no-store", ...integrityHeaders(build) },
  });
}

const FILE = { description: "the build's file name", example: "app-2267_01.apk" };
const VERSION = { description: "its version", example: "2267_01" };
const ABI = { description: "its ABI", example: "arm64" };

/** Describes a download route; `segments` are the path segments after `/source/`. */
function downloadDetail(summary: string, segments: { description: string; example: string }[]) {
  const names = ["first", "second", "third"];
  return {
    parameters: [
      ...segments.map((segment, nth) => ({
        ...segment,
        name: names[nth] ?? "",
        in: "path" as const,
        required: true,
        schema: { type: "string" as const },
      })),
      RANGE,
    ],
    summary,
    responses: {
      200: { description: "The file", content: { "application/octet-stream": {} } },
      206: { description: "The range" },
      302: { description: "Redirect to the object store, with DOWNLOAD_REDIRECT" },
      304: { description: "Not modified" },
      ...errors({ 404: "no such file" }, 410, 412, 416),
    },
  };
}
