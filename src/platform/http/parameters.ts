import { type StaticDecode, type TObject, type TProperties, type TSchema } from "@sinclair/typebox";

import { Input } from "../input.ts";

/**
 * The query of a route that checks something else before it. Elysia reads the queries of all other
 * routes.
 */
export class Query<P extends TProperties> extends Input<P> {
  readonly #names: [name: string, isList: boolean][];

  constructor(properties: P) {
    super(properties, { what: "the query" });
    const entries = Object.entries<TSchema>(properties);
    this.#names = entries.map(([name, { type }]) => [name, type === "array"]);
  }

  of(request: Request): StaticDecode<TObject<P>> {
    return this.read(this.given(request));
  }

  /** Returns the parameters as they were sent. The first one of a name counts, unless it is a list. */
  given(request: Request): Record<string, unknown> {
    const given: Record<string, unknown> = {};
    const query = queryOf(request);
    if (query === undefined) return given;
    for (const [name, isList] of this.#names) {
      const value = isList ? split(query.getAll(name)) : query.get(name);
      if (value !== null) given[name] = value;
    }
    return given;
  }
}

/** Returns the query, if there is one. The URL is only a path if the request has no `Host`. */
export function queryOf({ url }: Request): URLSearchParams | undefined {
  const start = url.indexOf("?");
  return start === -1 ? undefined : new URLSearchParams(url.slice(start));
}

/** Splits lists whose items are separated by commas. */
function split(lists: string[]): string[] {
  return lists.flatMap((list) => list.split(",")).filter((item) => item !== "");
}
