import { BACKEND, type CorsPolicy, policyOf } from "./cors.ts";

type Route = {
  method: string;
  path: string;
  hooks?: { detail?: Parameters<typeof policyOf>[0] };
};
export type Match = {
  template: string;
  methods: Set<string>;
  /** CORS policies by method. */
  policies: Map<string, CorsPolicy>;
};

// Segments looked at in an unknown path, which may be long; no route has more.
const SEGMENTS_MAX = 8;

/** Which paths exist, with which methods: for 405, for CORS and for metric labels of bounded number. */
export class RouteTable {
  readonly #literal = new Map<string, Match>();
  /** by their first segment: one after another is slow where there are many */
  readonly #patterns = new Map<string, { pattern: RegExp; match: Match }[]>();
  /** CORS policies of unknown paths, by the path prefixes of routes. */
  readonly #folders = new Map<string, CorsPolicy>();

  constructor(routes: Iterable<Route>) {
    for (const { method, path, hooks } of routes) {
      const { methods, policies } = this.#templateOf(path);
      const policy = policyOf(hooks?.detail);
      methods.add(method.toUpperCase());
      policies.set(method.toUpperCase(), policy);
      for (const folder of foldersOf(path))
        this.#folders.set(folder, widest([this.#folders.get(folder) ?? policy, policy]));
    }
  }

  match(path: string): Match | undefined {
    return (
      this.#literal.get(path) ??
      this.#patternsOf(path).find(({ pattern }) => pattern.test(path))?.match
    );
  }

  /**
   * Returns the policy of the route's method, else of its path, else of the longest path prefix
   * with routes.
   */
  policy(match: Match | undefined, method: string, path: string): CorsPolicy {
    if (match === undefined)
      return widest(
        foldersOf(path)
          .flatMap((folder) => this.#folders.get(folder) ?? [])
          .slice(-1),
      );
    return (
      match.policies.get(method === "HEAD" ? "GET" : method) ?? widest([...match.policies.values()])
    );
  }

  #templateOf(path: string): Match {
    const known =
      this.#literal.get(path) ??
      this.#patternsOf(path).find(({ match }) => match.template === path)?.match;
    if (known !== undefined) return known;
    const match: Match = { template: path, methods: new Set(), policies: new Map() };
    if (/[:*]/.test(path))
      this.#patterns.set(firstSegment(path), [
        ...this.#patternsOf(path),
        {
          pattern: new RegExp(`^${path.replaceAll(/:[^/]+/g, "[^/]+").replaceAll("*", ".+")}$`),
          match,
        },
      ]);
    else this.#literal.set(path, match);
    return match;
  }

  #patternsOf(path: string) {
    return this.#patterns.get(firstSegment(path)) ?? [];
  }
}

/** No route begins with a parameter. */
function firstSegment(path: string): string {
  const end = path.indexOf("/", 1);
  return end === -1 ? path : path.slice(0, end);
}

/** Returns the path prefixes: `/a` and `/a/b` of `/a/b/c`. */
function foldersOf(path: string): string[] {
  const folders: string[] = [];
  for (let end = path.indexOf("/", 1); end !== -1; end = path.indexOf("/", end + 1)) {
    if (folders.length === SEGMENTS_MAX) break;
    folders.push(path.slice(0, end));
  }
  return folders;
}

function widest(policies: CorsPolicy[]): CorsPolicy {
  return policies.find(({ origins }) => origins === "any") ?? policies[0] ?? BACKEND;
}
