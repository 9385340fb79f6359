const CLIENT_PATHS =
  /^\/(?:v1\/(?:ios|mobile|web)\/|ping$|subscribe(?:\/|$)|presence$|presence\/ws$)/;

const CLIENT_HEADERS = {
  "access-control-allow-methods": "GET, POST, OPTIONS",
  "access-control-allow-headers":
    "content-type, authorization, content-encoding, datatype, x-openreplay-batch, last-event-id, cache-control",
  "access-control-max-age": "86400",
};

const MANAGEMENT_HEADERS = {
  "access-control-allow-methods": "GET, POST, PUT, PATCH, DELETE, OPTIONS",
  "access-control-allow-headers": "content-type, x-server-key, range",
  "access-control-max-age": "86400",
};

/** Whether apps and their SDKs call the path, from anywhere and often. */
export function isClientPath(path: string): boolean {
  return CLIENT_PATHS.test(path);
}

/** CORS headers: any origin without credentials on clients' routes, only configured origins on management routes. */
export class Cors {
  readonly #origins: Set<string>;

  constructor(managementOrigins: string[]) {
    this.#origins = new Set(managementOrigins);
  }

  /** Sets the headers that every answer carries, errors included: without them a browser hides the status. */
  apply(path: string, request: Request, headers: Headers): void {
    if (isClientPath(path)) {
      headers.set("access-control-allow-origin", "*");
      return;
    }
    const origin = request.headers.get("origin");
    if (origin === null) return;
    headers.append("vary", "origin");
    if (!this.#origins.has(origin)) return;
    headers.set("access-control-allow-origin", origin);
    headers.set(
      "access-control-expose-headers",
      "content-range, etag, x-request-id, x-total-count",
    );
  }

  preflight(path: string): Response {
    return new Response(null, {
      status: 204,
      headers: isClientPath(path) ? CLIENT_HEADERS : MANAGEMENT_HEADERS,
    });
  }
}
