import { type AnyElysia, Elysia, type InternalRoute } from "elysia";
import { createBunRouteHandler } from "elysia/adapter/bun/compose";
import { Memoirist } from "memoirist";

import { AppError, renderError } from "../errors.ts";
import { toAppError } from "./framework-errors.ts";
import { type Policy, policyOf, traitsOf, widest } from "./policy.ts";
import { type ServerKeys } from "./server-keys.ts";

type Params = Record<string, unknown>;
type Handler = (request: Request, params: Params) => Response | Promise<Response>;

/** Handler of a request and the rules for it, also for requests that no route matches. */
export type Route = {
  /** Label in the metrics. */
  template: string;
  policy: Policy;
  /** Set if requests are bounded and counted by client address before they are answered. */
  isOpen: boolean;
  /** Answers the request. Throws the error to render. */
  answer: Handler;
};

export type Match = { store: Route; params: Params };

type Path = {
  template: string;
  /** Policies by method; empty if the path is only a prefix of routes. */
  methods: Map<string, Policy>;
  /** Widest policy of the routes at the path and below it. */
  below: Policy;
};

/** Label of unknown paths, and the policy of those that share not even their first segment with a route. */
export const NOWHERE: Pick<Route, "template" | "policy"> = {
  template: "unknown",
  policy: { audience: "operator", tag: "Unknown", errors: renderError },
};

/**
 * Finds the route of a request. For unknown paths and methods, finds the policy by which to refuse
 * them.
 */
export class Router {
  readonly #routes = new Memoirist<Route>({ onParam: decode });
  /** Paths of the routes, for all methods together, and every prefix of the paths. */
  readonly #paths = new Memoirist<Path>();

  /** Throws if a route was mounted without a policy. */
  constructor(slices: AnyElysia[], serverKeys: ServerKeys) {
    const app = rootOf(slices);
    for (const route of app.routes) {
      const policy = policyOf(route);
      this.#routes.add(route.method, route.path, {
        template: route.path,
        policy,
        isOpen: traitsOf(policy).isOpen,
        answer: guarded(handlerOf(app, route, policy), policy, serverKeys),
      });
    }
    for (const [path, known] of pathsOf(app.routes)) this.#paths.add("", path, known);
  }

  match(request: Request, path: string): Match {
    const { method } = request;
    const isHead = method === "HEAD";
    const found = this.#routes.find(isHead ? "GET" : method, path);
    return found === null || (isHead && found.store.policy.exactPath === true)
      ? { store: this.#refusal(request, path), params: {} }
      : found;
  }

  /** Returns the policy of the longest prefix that the path shares with a route. */
  policyNear(path: string): Policy {
    return this.#paths.find("", path)?.store.below ?? NOWHERE.policy;
  }

  /** Makes the answer to a preflight, a wrong method (405) or an unknown path (404). */
  #refusal(request: Request, path: string): Route {
    const known = this.#paths.find("", path)?.store;
    if (known === undefined || known.methods.size === 0)
      return {
        template: NOWHERE.template,
        policy: known?.below ?? NOWHERE.policy,
        isOpen: false,
        answer: () => {
          throw new AppError("no_route", "no such route");
        },
      };
    const { template, methods } = known;
    const asked = askedMethod(request);
    return {
      template,
      policy: methods.get(asked === "HEAD" ? "GET" : asked) ?? widest([...methods.values()]),
      isOpen: false,
      answer: ({ method }) => {
        if (method === "OPTIONS") return new Response(null, { status: 204 });
        throw new AppError("method_not_allowed", "method not allowed", {
          headers: { allow: [...methods.keys(), "OPTIONS"].join(", ") },
        });
      },
    };
  }
}

/** Joins the slices in one app. It throws errors on: the edge renders them by the route's policy. */
function rootOf(slices: AnyElysia[]): AnyElysia {
  // Look for the path right behind `http://`: Elysia would skip 4 characters of the host name, and
  // not find the path after a shorter one.
  const root = new Elysia({ name: "floodgate", handler: { standardHostname: false } }).onError(
    ({ code, error }) => {
      throw toAppError(code, error);
    },
  );
  for (const slice of slices) root.use(slice);
  return root;
}

/** Returns Elysia's handler of one route, without Elysia's own routing. */
function handlerOf(app: AnyElysia, route: InternalRoute, { bare }: Policy): Handler {
  if (bare === true) return bareHandlerOf(route);
  const handle: (request: Request) => Response | Promise<Response> = createBunRouteHandler(
    app,
    route,
  );
  return route.path.includes(":")
    ? (request, params) => handle(Object.assign(request, { params }))
    : handle;
}

function bareHandlerOf({ method, path, handler, hooks }: InternalRoute): Handler {
  if (path.includes(":")) throw new Error(`${method} ${path} is bare, so it gets no parameters`);
  for (const name of ["params", "query", "headers", "body", "beforeHandle", "afterHandle"] as const)
    if (hooks[name] !== undefined)
      throw new Error(`${method} ${path} is bare, so its ${name} would be ignored`);
  return (request) => Reflect.apply(handler, undefined, [{ request }]);
}

/** Adds the check of the server key for routes that need one. */
function guarded(handle: Handler, policy: Policy, serverKeys: ServerKeys): Handler {
  if (!traitsOf(policy).isKeyed) return handle;
  return (request, params) => {
    serverKeys.check(request, policy.keyRefusal);
    return handle(request, params);
  };
}

/**
 * Returns the paths of the routes by pattern. Adds each prefix of a path, and a wildcard for unknown
 * paths below it.
 */
function pathsOf(routes: InternalRoute[]): Map<string, Path> {
  const paths = new Map<string, Path>();
  const at = (path: string, policy: Policy) => {
    const known: Path = paths.get(path) ?? { template: path, methods: new Map(), below: policy };
    known.below = widest([known.below, policy]);
    paths.set(path, known);
    return known;
  };
  for (const route of routes) {
    const policy = policyOf(route);
    const [, ...segments] = route.path.split("/").map(anonymous);
    const own = at(`/${segments.join("/")}`, policy);
    own.template = route.path;
    own.methods.set(route.method, policy);
    const isRoot = route.path === "/";
    for (let many = isRoot ? 0 : segments.length; many > 0; many--) {
      const beginning = `/${segments.slice(0, many).join("/")}`;
      at(beginning, policy);
      at(`${beginning}/*`, policy);
    }
  }
  return paths;
}

/** Renames a parameter, because routes at one path may name it differently. */
function anonymous(segment: string): string {
  return segment.startsWith(":") ? ":any" : segment;
}

/** Returns the method that a preflight asks for, or else the request's own. */
function askedMethod({ method, headers }: Request): string {
  return method === "OPTIONS" ? (headers.get("access-control-request-method") ?? method) : method;
}

/** Decodes a parameter. Returns null if it is not UTF-8. */
function decode(text: string): string | null {
  if (!text.includes("%")) return text;
  try {
    return decodeURIComponent(text);
  } catch {
    return null;
  }
}
