type Route = { method: string; path: string };
export type Match = { template: string; methods: Set<string> };

/** Which paths exist, with which methods: for 405, for CORS and for metric labels of bounded number. */
export class RouteTable {
  readonly #literal = new Map<string, Match>();
  readonly #patterns: { pattern: RegExp; match: Match }[] = [];

  constructor(routes: Iterable<Route>) {
    for (const { method, path } of routes) this.#templateOf(path).methods.add(method.toUpperCase());
  }

  match(path: string): Match | undefined {
    return (
      this.#literal.get(path) ?? this.#patterns.find(({ pattern }) => pattern.test(path))?.match
    );
  }

  #templateOf(path: string): Match {
    const known =
      this.#literal.get(path) ?? this.#patterns.find(({ match }) => match.template === path)?.match;
    if (known !== undefined) return known;
    const match: Match = { template: path, methods: new Set() };
    if (/[:*]/.test(path))
      this.#patterns.push({
        pattern: new RegExp(`^${path.replaceAll(/:[^/]+/g, "[^/]+").replaceAll("*", ".+")}$`),
        match,
      });
    else this.#literal.set(path, match);
    return match;
  }
}
