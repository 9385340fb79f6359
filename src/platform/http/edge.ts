import { isOutage } from "../database/postgres-errors.ts";
import { AppError, unavailable } from "../errors.ts";
import { type Log } from "../logger.ts";
import { type Metrics } from "../telemetry/metrics.ts";
import { type Clients } from "./clients.ts";
import { type Cors } from "./cors.ts";
import { traitsOf } from "./policy.ts";
import { type RateLimit, networkOf } from "./rate-limits.ts";
import { checkHead } from "./request-head.ts";
import { RequestLog } from "./request-log.ts";
import { type Match, NOWHERE, type Route, type Router } from "./router.ts";

// Path prefix in the base URL that SDKs are configured with.
const SDK_PREFIX = "/ingest";

export type EdgeDeps = {
  router: Router;
  clients: Clients;
  cors: Cors;
  metrics: Metrics;
  log: Log;
  /** Limit per client address on routes that anybody can call. */
  rateLimit?: RateLimit | undefined;
  /**
   * Number of requests in progress above which those routes answer 503. Each waiting request takes
   * some 10 KiB, however small its body is.
   */
  requestsMax?: number | undefined;
};

/** Request, and what is known of it so far. */
type Exchange = {
  request: Request;
  startedMs: number;
  path: string;
  route: Pick<Route, "template" | "policy">;
};

/**
 * Handles every request as the policy of its route says, also without a known route: path
 * normalisation, CORS, limits, request id, metrics, log line, rendering of errors.
 */
export class Edge {
  readonly #deps: EdgeDeps;
  readonly #log: RequestLog;
  #active = 0;
  /** While true, responses close their connections, so that clients open the next one elsewhere. */
  draining = false;

  constructor(deps: EdgeDeps) {
    this.#deps = deps;
    this.#log = new RequestLog(deps.log);
  }

  /** Number of requests that wait for their response. */
  get active(): number {
    return this.#active;
  }

  /** Answers a request. Renders whatever was thrown on the way, and finishes that response, too. */
  async fetch(request: Request): Promise<Response> {
    this.#active++;
    const exchange: Exchange = { request, startedMs: performance.now(), path: "", route: NOWHERE };
    try {
      exchange.path = this.#pathOf(request.url);
      const match = this.#deps.router.match(request, exchange.path);
      exchange.route = match.store;
      return this.#finish(await this.#answer(request, match), exchange);
    } catch (error) {
      return this.#finish(this.#renderError(error, exchange), exchange);
    } finally {
      this.#active--;
    }
  }

  /** Renders an error as the policy says. Logs it in full unless it is an AppError. */
  #renderError(thrown: unknown, { request, path, route }: Exchange): Response {
    const error = asUnavailable(thrown);
    this.#deps.metrics.refusals.inc({
      reason: error instanceof AppError ? error.reason : "internal",
    });
    if (!(error instanceof AppError)) this.#log.fault(error, request, path);
    return route.policy.errors(error);
  }

  /** Calls the route. Throws the error to render. */
  #answer(request: Request, { store: route, params }: Match): Response | Promise<Response> {
    checkHead(request);
    if (route.isOpen) this.#bound(request);
    return route.answer(request, params);
  }

  /**
   * Throws 503 if too many requests are in progress, 429 if too many came from the address. Runs
   * before the route does anything, so that a refusal costs little.
   */
  #bound(request: Request): void {
    const { rateLimit, requestsMax, clients } = this.#deps;
    if (requestsMax !== undefined && this.#active > requestsMax)
      throw unavailable("too many requests wait at the moment, send it again", 1, {
        reason: "overload",
      });
    rateLimit?.take(networkOf(clients.address(request)));
  }

  /** Adds the headers that every response has, counts it and logs it. */
  #finish(response: Response, { request, startedMs, path, route }: Exchange): Response {
    const { template, policy } = route;
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
    return response;
  }

  /**
   * Returns the path without doubled slashes, without `/ingest`, and without a trailing slash unless
   * paths are exact there.
   */
  #pathOf(url: string): string {
    // The URL is only a path if the request has no `Host`, as HTTP/1.0 allows.
    const start = url.startsWith("/") ? 0 : url.indexOf("/", url.indexOf("://") + 3);
    const query = url.indexOf("?", start);
    let path = url.slice(start, query === -1 ? url.length : query);
    if (path.includes("//")) path = path.replaceAll(/\/{2,}/g, "/");
    if (path.startsWith(`${SDK_PREFIX}/`)) path = path.slice(SDK_PREFIX.length);
    if (path.length === 1 || !path.endsWith("/")) return path;
    return this.#deps.router.policyNear(path).exactPath === true ? path : path.slice(0, -1);
  }
}

/** Returns a 503 for the error of a statement that the database did not take; others unchanged. */
function asUnavailable(cause: unknown): unknown {
  if (!isOutage(cause)) return cause;
  return unavailable("the database is away, send it again", 2, { cause, reason: "database" });
}

function requestId(request: Request): string {
  const given = request.headers.get("x-request-id");
  return given !== null && /^[\w-]{1,64}$/.test(given) ? given : crypto.randomUUID();
}
