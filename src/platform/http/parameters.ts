import { type StaticDecode, type TObject, type TProperties, type TSchema } from "@sinclair/typebox";

import { AppError } from "../errors.ts";
import { Input } from "../input.ts";

type Shape = "one" | "list" | "object";

/**
 * The query of a route that checks something else before it, or that has objects: a parameter
 * `metadata` of type object is sent as `metadata[key]=value`. Elysia reads the queries of all other
 * routes.
 */
export class Query<P extends TProperties> extends Input<P> {
  readonly #shapes: Map<string, Shape>;
  readonly #isClosed: boolean;

  /** A closed query refuses unknown parameters instead of ignoring them. */
  constructor(properties: P, { isClosed = false } = {}) {
    super(properties, { what: "the query" });
    const entries = Object.entries<TSchema>(properties);
    this.#shapes = new Map(entries.map(([name, { type }]) => [name, shapeOf(type)]));
    this.#isClosed = isClosed;
  }

  /** Throws 400. */
  of(request: Request): StaticDecode<TObject<P>> {
    if (this.#isClosed) this.#refuseUnknown(request);
    return this.read(this.given(request));
  }

  /** Returns the parameters as they were sent. The first one of a name counts, unless it is a list. */
  given(request: Request): Record<string, unknown> {
    const given: Record<string, unknown> = {};
    const query = queryOf(request);
    if (query === undefined) return given;
    for (const [name, shape] of this.#shapes) {
      const value = READERS[shape](query, name);
      if (value !== null) given[name] = value;
    }
    return given;
  }

  #refuseUnknown(request: Request): void {
    for (const name of queryOf(request)?.keys() ?? []) {
      const [, object] = OBJECT_KEY.exec(name) ?? [];
      const shape = this.#shapes.get(object ?? name);
      if (shape === undefined || (shape === "object") !== (object !== undefined))
        throw new AppError("invalid", `there is no parameter ${JSON.stringify(name.slice(0, 64))}`);
    }
  }
}

const OBJECT_KEY = /^([^[\]]+)\[(.*)\]$/s;

const READERS: Record<Shape, (query: URLSearchParams, name: string) => unknown> = {
  one: (query, name) => query.get(name),
  list: (query, name) => split(query.getAll(name)),
  object(query, name) {
    const entries = [...query].flatMap(([key, value]) => {
      const [, object, field = ""] = OBJECT_KEY.exec(key) ?? [];
      return object === name ? [[field, value] as const] : [];
    });
    return entries.length === 0 ? null : Object.fromEntries(entries);
  },
};

function shapeOf(type: unknown): Shape {
  if (type === "array") return "list";
  return type === "object" ? "object" : "one";
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
