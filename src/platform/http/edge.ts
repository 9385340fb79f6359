import { AppError, unavailable } from "../errors.ts";
import { type Log } from "../logger.ts";
import { type Metrics } from "../telemetry/metrics.ts";
import { type Clients } from "./clients.ts";
import { type Cors } from "./cors.ts";
import { type Policy, traitsOf } from "./policy.ts";
import { type RateLimit, networkOf } from "./rate-limits.ts";
import { checkHead } from "./request-head.ts";
import { RequestLog } from "./request-log.ts";
import { type Match, type Route, type Router } from "./router.ts";

// Configured into SDKs as part of their base URL.
const SDK_PREFIX = "/ingest";

export type EdgeDeps = {
  router: Router;
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
};

/**
 * What every request passes, known route or not: path normalisation, CORS, limits, request id,
 * metrics, log line, rendering of errors; each as the policy of the route says.
 */
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
    const path = this.#pathOf(request.url);
    const match = this.#deps.router.match(request, path);
    const route = match.store;
    let response: Response;
    try {
      response = await this.#answer(request, match);
    } catch (error) {
      response = this.#renderError(error, { request, path, policy: route.policy });
    } finally {
      this.#active--;
    }
    this.#finish(request, path, response, startedMs, route);
    return response;
  }

  /** Also the last resort for whatever a route throws: logged in full, shown as "internal error". */
  #renderError(
    error: unknown,
    { request, path, policy }: { request: Request; path: string; policy: Policy },
  ): Response {
    this.#deps.metrics.refusals.inc({
      reason: error instanceof AppError ? error.reason : "internal",
    });
    if (!(error instanceof AppError)) this.#log.fault(error, request, path);
    return policy.errors(error);
  }

  /** Throws what is to be rendered. */
  #answer(request: Request, { store: route, params }: Match): Response | Promise<Response> {
    checkHead(request);
    if (route.isOpen) this.#bound(request);
    return route.answer(request, params);
  }

  /**
   * Throws 503 if too many requests are in progress, 429 if too many came from the address. Before
   * anything else is done, so that a refusal costs little.
   */
  #bound(request: Request): void {
    const { rateLimit, requestsMax, clients } = this.#deps;
    if (requestsMax !== undefined && this.#active > requestsMax)
      throw unavailable("too many requests wait at the moment, send it again", 1, {
        reason: "overload",
      });
    rateLimit?.take(networkOf(clients.address(request)));
  }

  #finish(
    request: Request,
    path: string,
    response: Response,
    startedMs: number,
    { template, policy }: Route,
  ): void {
    const { cors, metrics, clients } = this.#deps;
    const { method } = request;
    const { status } = response;
    const id = requestId(request);
    response.headers.set("x-request-id", id);
    if (this.draining) response.headers.set("connection", "close");
    cors.apply(policy, request, response.headers);
    const ms = performance.now() - startedMs;
    const { acknowledges } = policy;
    metrics.request({ route: template, acknowledges }, method, status, ms);
    this.#log.request(
      () => ({
        id,
        method,
        path,
        status,
        ms: Math.round(ms * 10) / 10,
        address: clients.address(request),
      }),
      { isKeyed: traitsOf(policy).isKeyed, status },
    );
  }

  /** Returns the path without doubled slashes, without a trailing one unless paths are exact there, and without `/ingest`. */
  #pathOf(url: string): string {
    // Without a `Host`, as HTTP/1.0 may be, the URL is the path alone.
    const start = url.startsWith("/") ? 0 : url.indexOf("/", url.indexOf("://") + 3);
    const query = url.indexOf("?", start);
    let path = url.slice(start, query === -1 ? url.length : query);
    if (path.includes("//")) path = path.replaceAll(/\/{2,}/g, "/");
    if (path.startsWith(`${SDK_PREFIX}/`)) path = path.slice(SDK_PREFIX.length);
    if (path.length === 1 || !path.endsWith("/")) return path;
    return this.#deps.router.policyNear(path).exactPath === true ? path : path.slice(0, -1);
  }
}

function requestId(request: Request): string {
  const given = request.headers.get("x-request-id");
  return given !== null && /^[\w-]{1,64}$/.test(given) ? given : crypto.randomUUID();
}
