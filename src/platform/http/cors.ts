import { type Policy, traitsOf } from "./policy.ts";

const COMMON_HEADERS = ["content-type", "cache-control", "x-request-id"];
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

/** Sets CORS headers by the policies of the routes. Responses never allow credentials. */
export class Cors {
  readonly #configured: Set<string>;

  /** Takes origins as browsers send them, or `*` for all. */
  constructor(origins: string[]) {
    this.#configured = new Set(origins);
  }

  /**
   * Sets the headers of a response, errors included: without them a browser hides the status from
   * the page.
   */
  apply(policy: Policy, request: Request, headers: Headers): void {
    const { origins, headers: usual } = traitsOf(policy);
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
    const allowed = [...COMMON_HEADERS, ...usual, ...(policy.headers ?? [])];
    headers.set("access-control-allow-headers", allowed.join(", "));
    headers.set("access-control-max-age", PREFLIGHT_SECONDS);
  }
}
