const CLIENT_PATHS =
  /^\/(?:v1\/(?:ios|mobile|web)\/|ping$|subscribe(?:\/|$)|presence$|presence\/ws$)/;

/**
 * CORS policy of a route: the allowed origins, and request headers in addition to the common ones.
 */
export type CorsPolicy = { origins: "any" | "configured"; headers: string[] };

/** Key of the CORS policy in a route's `detail`. */
const DETAIL = "x-cors";
const COMMON_HEADERS = ["content-type", "cache-control", "x-request-id"];

/** Request headers with which a client resumes a download or revalidates a cached file. */
export const CONDITIONAL_HEADERS = [
  "range",
  "if-range",
  "if-match",
  "if-none-match",
  "if-modified-since",
  "if-unmodified-since",
];

/** Policy of routes that declare none, and of unknown paths. */
export const BACKEND: CorsPolicy = {
  origins: "configured",
  headers: ["x-server-key", ...CONDITIONAL_HEADERS],
};

const METHODS = {
  any: "GET, HEAD, POST, OPTIONS",
  configured: "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
};
const PREFLIGHT_SECONDS = "86400";
// Response headers that scripts may read in addition to the CORS-safelisted ones.
const EXPOSED = [
  "accept-encoding",
  "accept-ranges",
  "allow",
  "content-length",
  "content-range",
  "etag",
  "retry-after",
  "x-build-sha256",
  "x-build-signature",
  "x-request-id",
  "x-total-count",
].join(", ");

/** Returns the `detail` of a route that any origin may call, without cookies. */
export function anyOrigin(...headers: string[]): { [DETAIL]: CorsPolicy } {
  return { [DETAIL]: { origins: "any", headers } };
}

/** Like `anyOrigin`, with the headers that web SDKs send. */
export function forSdks() {
  return anyOrigin("authorization", "content-encoding", "datatype", "x-openreplay-batch");
}

/** Returns the `detail` of a route that only pages of CORS_ORIGINS may call. */
export function configuredOrigins(...headers: string[]): { [DETAIL]: CorsPolicy } {
  return { [DETAIL]: { origins: "configured", headers } };
}

/** Returns the policy that a route's `detail` declares. */
export function policyOf(detail: { [DETAIL]?: CorsPolicy } | undefined): CorsPolicy {
  return detail?.[DETAIL] ?? BACKEND;
}

/** Whether apps and their SDKs call the path, from anywhere and often. */
export function isClientPath(path: string): boolean {
  return CLIENT_PATHS.test(path);
}

/** Sets CORS headers by the policies of the routes. Responses never allow credentials. */
export class Cors {
  readonly #configured: Set<string>;

  /** Takes origins as browsers send them, or `*` for all. */
  constructor(origins: string[]) {
    this.#configured = new Set(origins);
  }

  /** Sets the headers that every answer carries, errors included: without them a browser hides the status. */
  apply({ origins, headers: own }: CorsPolicy, request: Request, headers: Headers): void {
    const origin = request.headers.get("origin");
    if (origins === "any" || this.#configured.has("*"))
      headers.set("access-control-allow-origin", "*");
    else {
      if (this.#configured.size > 0) headers.append("vary", "origin");
      if (origin === null || !this.#configured.has(origin)) return;
      headers.set("access-control-allow-origin", origin);
    }
    if (origin === null) return;
    headers.set("access-control-expose-headers", EXPOSED);
    if (request.method !== "OPTIONS") return;
    headers.set("access-control-allow-methods", METHODS[origins]);
    headers.set("access-control-allow-headers", [...COMMON_HEADERS, ...own].join(", "));
    headers.set("access-control-max-age", PREFLIGHT_SECONDS);
  }
}
