import { parseArgs } from "node:util";

import { announce } from "./helper.ts";
import { LatencyRecorder } from "./load/latency.ts";

/**
 * Simulates an S3 server with configurable latencies and limits: takes PUTs of whole objects or of
 * parts, keeps their keys and lengths, and answers when a real server would. It verifies CRC-32s,
 * checks no signatures and keeps no bytes unless asked to. Every report names it as a simulator.
 */
const { values: flags } = parseArgs({
  options: {
    "p50-ms": { type: "string", default: "30" },
    /** A value equal to the median makes the delay constant. */
    "p99-ms": { type: "string", default: "400" },
    /** PUTs beyond this rate wait, they are not refused; 0 is unlimited. */
    "puts-per-second": { type: "string", default: "0" },
    "keep-bodies": { type: "boolean", default: false },
    seed: { type: "string", default: "1" },
  },
});

const Z99 = 2.3263;
const medianMs = Number(flags["p50-ms"]);
const sigma = medianMs > 0 ? Math.log(Number(flags["p99-ms"]) / medianMs) / Z99 : 0;
const putsPerSecond = Number(flags["puts-per-second"]);
const random = seededRandom(Number(flags.seed));

type Stored = { bytes: number; etag: string; body: Uint8Array | undefined };
const objects = new Map<string, Stored>();
/** Unfinished multipart uploads by id, with the length of each part by its number. */
const uploads = new Map<string, { key: string; parts: Map<string, number> }>();
const putLatency = new LatencyRecorder();
const counters = { puts: 0, putBytes: 0, conflicts: 0, gets: 0, underWay: 0, underWayMax: 0 };
let nextTurnMs = 0;

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  maxRequestBodySize: 2 ** 30,
  idleTimeout: 0,
  fetch: async (request) => {
    const url = new URL(request.url);
    if (url.pathname === "/_stats") return stats(url);
    if (request.method === "PUT") return put(request, url);
    if (url.searchParams.has("uploads") || url.searchParams.has("uploadId"))
      return multipart(request, url);
    return other(request, url);
  },
});
announce(server.port);

async function put(request: Request, url: URL): Promise<Response> {
  const key = url.pathname;
  const arrivedAtMs = performance.now();
  counters.underWay++;
  counters.underWayMax = Math.max(counters.underWayMax, counters.underWay);
  try {
    const body = await take(request);
    const crc32 = request.headers.get("x-amz-checksum-crc32");
    if (crc32 !== null && crc32 !== body.crc32) return failure(400, "BadDigest");
    await Bun.sleep(Math.max(dueAtMs(arrivedAtMs) - performance.now(), 0));
    if (request.headers.get("if-none-match") === "*" && objects.has(key)) {
      counters.conflicts++;
      return failure(412, "PreconditionFailed");
    }
    const etag = etagOf(request);
    const part = url.searchParams.get("partNumber");
    if (part === null) objects.set(key, { bytes: body.bytes, etag, body: body.kept });
    else uploads.get(url.searchParams.get("uploadId") ?? "")?.parts.set(part, body.bytes);
    counters.puts++;
    counters.putBytes += body.bytes;
    putLatency.recordMs(performance.now() - arrivedAtMs);
    const checksum = crc32 === null ? {} : { "x-amz-checksum-crc32": crc32 };
    return new Response(null, { headers: { ETag: etag, ...checksum } });
  } finally {
    counters.underWay--;
  }
}

/**
 * Returns when a PUT is answered. The delay counts from the request's arrival, as a client would
 * measure it, or from the PUT's turn if the rate is limited.
 */
function dueAtMs(arrivedAtMs: number): number {
  let startMs = arrivedAtMs;
  if (putsPerSecond > 0) {
    startMs = Math.max(arrivedAtMs, nextTurnMs);
    nextTurnMs = startMs + 1000 / putsPerSecond;
  }
  return startMs + medianMs * Math.exp(sigma * normal());
}

type Taken = { bytes: number; kept: Uint8Array | undefined; crc32: string };

async function take(request: Request): Promise<Taken> {
  if (flags["keep-bodies"]) {
    const kept = await request.bytes();
    return { bytes: kept.length, kept, crc32: inBase64(Bun.hash.crc32(kept)) };
  }
  let bytes = 0;
  let sum = 0;
  if (request.body !== null)
    for await (const chunk of request.body) {
      bytes += chunk.length;
      sum = Bun.hash.crc32(chunk, sum);
    }
  return { bytes, kept: undefined, crc32: inBase64(sum) };
}

function inBase64(crc32: number): string {
  const sum = Buffer.alloc(4);
  sum.writeUInt32BE(crc32);
  return sum.toString("base64");
}

/** Returns the MD5 that the client sent, which saves hashing; without one a constant. */
function etagOf(request: Request): string {
  const md5 = request.headers.get("content-md5");
  return md5 === null ? '"simulator-0"' : `"${Buffer.from(md5, "base64").toString("hex")}"`;
}

/** Begins, completes, aborts or lists multipart uploads, whose bytes are never kept. */
function multipart({ method }: Request, url: URL): Response {
  const id = url.searchParams.get("uploadId");
  if (id === null && method === "POST") {
    const begun = crypto.randomUUID();
    uploads.set(begun, { key: url.pathname, parts: new Map() });
    return xml(
      `<InitiateMultipartUploadResult><UploadId>${begun}</UploadId></InitiateMultipartUploadResult>`,
    );
  }
  if (id === null) return listUploads(url);
  const upload = uploads.get(id);
  uploads.delete(id);
  if (upload === undefined) return failure(404, "NoSuchUpload");
  if (method === "DELETE") return new Response(null, { status: 204 });
  const bytes = upload.parts.values().reduce((sum, part) => sum + part, 0);
  const etag = `"simulator-${upload.parts.size}"`;
  objects.set(upload.key, { bytes, etag, body: undefined });
  return xml(`<CompleteMultipartUploadResult><ETag>${etag}</ETag></CompleteMultipartUploadResult>`);
}

function listUploads(url: URL): Response {
  const root = rootOf(url);
  const prefix = root + (url.searchParams.get("prefix") ?? "");
  const entries = [...uploads]
    .filter(([, { key }]) => key.startsWith(prefix))
    .map(
      ([id, { key }]) =>
        `<Upload><Key>${key.slice(root.length)}</Key><UploadId>${id}</UploadId></Upload>`,
    );
  return xml(`<ListMultipartUploadsResult>${entries.join("")}</ListMultipartUploadsResult>`);
}

/** Returns the path of the bucket. */
function rootOf(url: URL): string {
  return `/${url.pathname.split("/").find(Boolean) ?? ""}/`;
}

function xml(text: string, status = 200): Response {
  const headers = { "Content-Type": "application/xml" };
  return new Response(`<?xml version="1.0"?>${text}`, { status, headers });
}

function other(request: Request, url: URL): Response {
  const key = url.pathname;
  if (request.method === "DELETE") {
    objects.delete(key);
    return new Response(null, { status: 204 });
  }
  if (request.method !== "GET" && request.method !== "HEAD") return failure(501, "NotImplemented");
  const isBucket = key.split("/").filter(Boolean).length < 2;
  if (isBucket) return request.method === "HEAD" ? new Response() : list(url);
  const stored = objects.get(key);
  if (stored === undefined) return failure(404, "NoSuchKey");
  const headers = { ETag: stored.etag, "Content-Length": String(stored.bytes) };
  if (request.method === "HEAD") return new Response(null, { headers });
  counters.gets++;
  if (stored.body === undefined) return failure(501, "NotImplemented");
  return read(stored.body, request.headers.get("range"), stored.etag);
}

function read(body: Uint8Array, range: string | null, etag: string): Response {
  const match = /^bytes=(\d+)-(\d*)$/.exec(range ?? "");
  if (match === null) return new Response(body, { headers: { ETag: etag } });
  const start = Number(match[1]);
  const end = match[2] === "" ? body.length - 1 : Math.min(Number(match[2]), body.length - 1);
  if (start > end) return failure(416, "InvalidRange");
  return new Response(body.subarray(start, end + 1), {
    status: 206,
    headers: { ETag: etag, "Content-Range": `bytes ${start}-${end}/${body.length}` },
  });
}

function list(url: URL): Response {
  const root = rootOf(url);
  const prefix = url.searchParams.get("prefix") ?? "";
  const keys = [...objects.keys()]
    .filter((key) => key.startsWith(root + prefix))
    .map((key) => key.slice(root.length))
    .toSorted();
  const entries = keys.slice(0, 1000).map((key) => {
    const bytes = objects.get(root + key)?.bytes ?? 0;
    return `<Contents><Key>${key}</Key><Size>${bytes}</Size></Contents>`;
  });
  return xml(
    `<ListBucketResult><Name>simulator</Name><KeyCount>${entries.length}</KeyCount><IsTruncated>false</IsTruncated>${entries.join("")}</ListBucketResult>`,
  );
}

function failure(status: number, code: string): Response {
  return xml(`<Error><Code>${code}</Code><Message>simulator</Message></Error>`, status);
}

/** Returns counters and latencies; `?reset` resets the latencies only. */
function stats(url: URL): Response {
  const answer = { ...counters, objects: objects.size, putLatency: putLatency.summary() };
  if (url.searchParams.has("reset")) putLatency.reset();
  return Response.json(answer);
}

function normal(): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

/** Returns a seeded generator (Mulberry32), so that every run has the same delays. */
function seededRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
