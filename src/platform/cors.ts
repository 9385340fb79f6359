const CLIENT_PATHS =
  /^\/(?:v1\/(?:ios|mobile|web)\/|ping$|subscribe(?:\/|$)|presence$|presence\/ws$)/;

/** Which pages may call a route, and with which request headers beside those that every route takes. */
export type CorsPolicy = { origins: "any" | "configured"; headers: string[] };

/** Where a route's `detail` has its policy. */
const DETAIL = "x-cors";
const COMMON_HEADERS = ["content-type", "cache-control", "x-request-id"];

/** The headers by which a client goes on with a file, or finds that it has it. */
export const CONDITIONAL_HEADERS = [
  "range",
  "if-range",
  "if-match",
  "if-none-match",
  "if-modified-since",
  "if-unmodified-since",
];

/** The policy of routes that declare none, and of paths that do not exist. */
export const BACKEND: CorsPolicy = {
  origins: "configured",
  headers: ["x-server-key", ...CONDITIONAL_HEADERS],
};

const METHODS = {
  any: "GET, HEAD, POST, OPTIONS",
  configured: "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
};
const PREFLIGHT_SECONDS = "86400";
// What scripts may read beside the headers that they always may.
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

/** For the `detail` of a route that apps and pages call from anywhere, without cookies. */
export function anyOrigin(...headers: string[]): { [DETAIL]: CorsPolicy } {
  return { [DETAIL]: { origins: "any", headers } };
}

/** The same of what SDKs call, with what those for the web send. */
export function forSdks() {
  return anyOrigin("authorization", "content-encoding", "datatype", "x-openreplay-batch");
}

/** For the `detail` of a route that only pages of CORS_ORIGINS call. */
export function configuredOrigins(...headers: string[]): { [DETAIL]: CorsPolicy } {
  return { [DETAIL]: { origins: "configured", headers } };
}

/** The policy that a route's `detail` declares. */
export function policyOf(detail: { [DETAIL]?: CorsPolicy } | undefined): CorsPolicy {
  return detail?.[DETAIL] ?? BACKEND;
}

/** Whether apps and their SDKs call the path, from anywhere and often. */
export function isClientPath(path: string): boolean {
  return CLIENT_PATHS.test(path);
}

/**
 * An origin as browsers send it: lower case, without the default port of its scheme. Returns undefined for anything else: a path, a
 * pattern, `null`, a host alone.
 */
export function parseOrigin(text: string): string | undefined {
  const url = /^[a-z][a-z0-9+.-]*:\/\/[^/?#@*\\\s]+\/?$/i.test(text) ? URL.parse(text) : null;
  return url === null || url.host === "" ? undefined : `${url.protocol}//${url.host.toLowerCase()}`;
}

/** CORS headers by the policies of routes. Answers never allow credentials. */
export class Cors {
  readonly #configured: Set<string>;

  /** Each is one origin as browsers send it, or `*` for all. */
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
