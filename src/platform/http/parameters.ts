import { Kind, TypeRegistry } from "@sinclair/typebox";
import { t } from "elysia";

import { notWhole, parseDecimal } from "../whole-numbers.ts";

type Described = { description?: string; examples?: string[] };
type Bounds = { minimum: number; maximum: number };

const WHOLE = "Whole";

// Elysia's own integers would also be read from `1e3`, `0x10` and `1.0`.
TypeRegistry.Set<Bounds>(WHOLE, ({ minimum, maximum }, value) => {
  const number = Number(typeof value === "string" ? parseDecimal(value) : value);
  return number >= minimum && number <= maximum;
});

/** Describes and reads a whole number of a query or path, in decimal digits. */
export function integer(
  name: string,
  minimum: number,
  maximum: number,
  options: Described & { default?: number } = {},
) {
  const error = notWhole(name, minimum, maximum).message;
  const schema = { [Kind]: WHOLE, type: "integer", minimum, maximum, error, ...options };
  return t.Transform(t.Unsafe<number>(schema)).Decode(Number).Encode(Number);
}

/** Describes text in a query or path, without NUL, which PostgreSQL cannot store. */
export function text(name: string, lengthMax: number, options: Described = {}) {
  const error = `${name} must be text of 1 to ${lengthMax} characters`;
  return t.String({ minLength: 1, maxLength: lengthMax, pattern: "^[^\\0]*$", error, ...options });
}

/** Returns the query of a request. The URL is only a path if the request has no `Host`. */
export function queryOf({ url }: Request): URLSearchParams {
  const start = url.indexOf("?");
  return new URLSearchParams(start === -1 ? "" : url.slice(start));
}
