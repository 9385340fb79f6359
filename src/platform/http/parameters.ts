import { t } from "elysia";

type Described = { description?: string; examples?: string[] };

/**
 * Describes a whole number in a query or path. The error names the parameter, as Elysia's own for a
 * number out of range does not.
 */
export function integer(
  name: string,
  minimum: number,
  maximum: number,
  options: Described & { default?: number } = {},
) {
  const error = `${name} must be a whole number from ${minimum} to ${maximum}`;
  return t.Integer({ minimum, maximum, error, ...options });
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
