type Route = { method: string; path: string };
export type Match = { template: string; methods: Set<string> };

/** Which paths exist, with which methods: for 405, for CORS and for metric labels of bounded number. */
export class RouteTable {
  readonly #literal = new Map<string, Match>();
  /** by their first segment: one after another is slow where there are many */
  readonly #patterns = new Map<string, { pattern: RegExp; match: Match }[]>();

  constructor(routes: Iterable<Route>) {
    for (const { method, path } of routes) this.#templateOf(path).methods.add(method.toUpperCase());
  }

  match(path: string): Match | undefined {
    return (
      this.#literal.get(path) ??
      this.#patternsOf(path).find(({ pattern }) => pattern.test(path))?.match
    );
  }

  #templateOf(path: string): Match {
    const known =
      this.#literal.get(path) ??
      this.#patternsOf(path).find(({ match }) => match.template === path)?.match;
    if (known !== undefined) return known;
    const match: Match = { template: path, methods: new Set() };
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
