import { type Clients } from "./clients.ts";
import { type Cors, isClientPath } from "./cors.ts";
import { AppError, renderError, unavailable } from "../errors.ts";
import { checkHead } from "./request-head.ts";
import { RequestLog } from "./request-log.ts";
import { rewrite } from "../rewritten.ts";
import { type Log } from "../logger.ts";
import { type Metrics } from "../telemetry/metrics.ts";
import { type RateLimit, networkOf } from "./rate-limits.ts";
import { type Match, type RouteTable } from "./route-table.ts";

// Elysia finds the path at the first slash from here on, so a shorter host name would hide it.
const ELYSIA_PATH_INDEX = 11;
// The update server's: apps ask them often, without a trailing slash and never for the head alone.
const EXACT_PATHS = /^\/api\//;
// Beside what apps and their SDKs call: update checks, downloads, and signatures that somebody may guess.
const OPEN_PATHS = /^\/(?:api|source)\//;

export type EdgeDeps = {
  handle: (request: Request) => Response | Promise<Response>;
  routes: RouteTable;
  clients: Clients;
  cors: Cors;
  metrics: Metrics;
  log: Log;
  /** Of each client address on the routes that anybody can call. */
  rateLimit?: RateLimit | undefined;
  /**
   * Concurrent requests at most on those routes: each waiting one takes some 10 KiB, however small
   * it is.
   */
  requestsMax?: number | undefined;
  /** Whose errors look otherwise. */
  formats?: { paths: RegExp; render: (error: unknown) => Response }[];
};

/** What every request passes, known route or not: path normalisation, preflight, 405, CORS, request id, metrics, log line. */
export class Edge {
  readonly #deps: EdgeDeps;
  readonly #log: RequestLog;
  #active = 0;
  /** While true every answer asks the client to open its next connection elsewhere. */
  draining = false;

  constructor(deps: EdgeDeps) {
    this.#deps = deps;
    this.#log = new RequestLog(deps.log);
  }

  /** Requests that wait for their answer. */
  get active(): number {
    return this.#active;
  }

  /** Never rejects. */
  async fetch(request: Request): Promise<Response> {
    this.#active++;
    const startedMs = performance.now();
    const url = splitUrl(request.url);
    const route = this.#deps.routes.match(url.path);
    let response: Response;
    try {
      response = await this.#answer(request, route, url);
    } catch (error) {
      response = this.renderError(error, request);
    } finally {
      this.#active--;
    }
    this.#finish(request, url.path, response, startedMs, route);
    return response;
  }

  /** Also the last resort for whatever a route throws: logged in full, shown as "internal error". */
  renderError(error: unknown, request: Request): Response {
    const { path } = splitUrl(request.url);
    this.#deps.metrics.refusals.inc({
      reason: error instanceof AppError ? error.reason : "internal",
    });
    if (!(error instanceof AppError)) this.#log.fault(error, request, path);
    const format = this.#deps.formats?.find(({ paths }) => paths.test(path));
    return (format?.render ?? renderError)(error);
  }

  /** Throws what is to be rendered. */
  #answer(request: Request, route: Match | undefined, url: Split): Response | Promise<Response> {
    const { path } = url;
    checkHead(request);
    if (route === undefined) throw new AppError("no_route", "no such route");
    const takesHead = !EXACT_PATHS.test(path);
    const method = request.method === "HEAD" && takesHead ? "GET" : request.method;
    if (method === "OPTIONS") return new Response(null, { status: 204 });
    if (!route.methods.has(method)) throw notAllowed(route.methods);
    return isClientPath(path) || OPEN_PATHS.test(path)
      ? this.#bounded(request, url)
      : this.#dispatch(request, url);
  }

  /** Handles routes that anybody may call. Throws 503 if too many requests are in progress. */
  #bounded(request: Request, url: Split): Response | Promise<Response> {
    const { rateLimit, requestsMax } = this.#deps;
    if (requestsMax !== undefined && this.#active > requestsMax)
      throw unavailable("too many requests wait at the moment, send it again", 1, {
        reason: "overload",
      });
    return rateLimit === undefined
      ? this.#dispatch(request, url)
      : this.#limited(rateLimit, request, url);
  }

  /** Throws 429. Before anything else is done, so that a refusal costs little. */
  async #limited(rateLimit: RateLimit, request: Request, url: Split): Promise<Response> {
    rateLimit.take(networkOf(this.#deps.clients.address(request)));
    return await this.#dispatch(request, url);
  }

  #dispatch(request: Request, { path, start, rest }: Split): Response | Promise<Response> {
    const isHead = request.method === "HEAD";
    // Every normalisation makes the path shorter.
    const isPlain = request.url.length === start + path.length + rest.length;
    const target =
      isHead || start < ELYSIA_PATH_INDEX || !isPlain
        ? rewrite(request, `http://floodgate${path}${rest}`, isHead ? "GET" : request.method)
        : request;
    // For a HEAD Bun sends the headers alone, with the length that the body has.
    return this.#deps.handle(target);
  }

  #finish(
    request: Request,
    path: string,
    response: Response,
    startedMs: number,
    route: Match | undefined,
  ): void {
    const { cors, routes, metrics, clients } = this.#deps;
    const id = requestId(request);
    response.headers.set("x-request-id", id);
    if (this.draining) response.headers.set("connection", "close");
    cors.apply(routes.policy(route, askedMethod(request), path), request, response.headers);
    const ms = performance.now() - startedMs;
    metrics.request(route?.template ?? "unknown", request.method, response.status, ms);
    const { method } = request;
    const { status } = response;
    this.#log.request(
      () => ({
        id,
        method,
        path,
        status,
        ms: Math.round(ms * 10) / 10,
        address: clients.address(request),
      }),
      { path, status },
    );
  }
}

type Split = { path: string; start: number; rest: string };

/** The path without doubled slashes, without a trailing one where that is no other path, and without the `/ingest` prefix that SDKs are configured with. */
function splitUrl(url: string): Split {
  // Without a `Host`, as HTTP/1.0 may be, the URL is the path alone.
  const start = url.startsWith("/") ? 0 : url.indexOf("/", url.indexOf("://") + 3);
  const query = url.indexOf("?", start);
  const end = query === -1 ? url.length : query;
  let path = url.slice(start, end);
  if (path.includes("//")) path = path.replaceAll(/\/{2,}/g, "/");
  if (path.startsWith("/ingest/")) path = path.slice("/ingest".length);
  if (path.length > 1 && path.endsWith("/") && !EXACT_PATHS.test(path)) path = path.slice(0, -1);
  return { path, start, rest: url.slice(end) };
}

/** Returns the method that a preflight asks for, or else the request's own. */
function askedMethod({ method, headers }: Request): string {
  return method === "OPTIONS" ? (headers.get("access-control-request-method") ?? method) : method;
}

function notAllowed(methods: Set<string>): AppError {
  return new AppError("method_not_allowed", "method not allowed", {
    headers: { allow: [...methods, "OPTIONS"].join(", ") },
  });
}

function requestId(request: Request): string {
  const given = request.headers.get("x-request-id");
  return given !== null && /^[\w-]{1,64}$/.test(given) ? given : crypto.randomUUID();
}
