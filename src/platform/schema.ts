import {
  Kind,
  KindGuard,
  type SchemaOptions,
  type TSchema,
  type TUnsafe,
  TypeRegistry,
} from "@sinclair/typebox";
import { t } from "elysia";

import { isText } from "./text.ts";
import { parseDecimal } from "./whole-numbers.ts";

/**
 * Returns what is wrong with a value, as text that is said after the value's name. Undefined if
 * nothing is.
 */
export type Problem = (value: unknown) => string | undefined;

/** A schema whose rule is a function; `/docs` shows its other properties. */
export type Ruled<T> = TUnsafe<T> & { problem: Problem };

const RULED = "Ruled";

TypeRegistry.Set<{ problem: Problem }>(RULED, ({ problem }, value) => problem(value) === undefined);

export function isRuled(schema: TSchema): schema is Ruled<unknown> {
  return KindGuard.IsKindOf(schema, RULED);
}

/** Describes values that `/docs` shows as `shown`, and in which `problem` finds nothing wrong. */
export function ruled<T>(shown: SchemaOptions, problem: Problem): Ruled<T> {
  return Object.assign(t.Unsafe<T>({ [Kind]: RULED, ...shown }), { problem });
}

/** Describes values that `read` converts, also absent ones. It throws 400 in its own words. */
export function readBy<T>(shown: SchemaOptions, read: (value: unknown) => T) {
  return t
    .Transform(ruled<unknown>(shown, () => undefined))
    .Decode(read)
    .Encode(String);
}

/** Describes the same, or null. */
export function orNull<T>(schema: Ruled<T>): Ruled<T | null> {
  const { problem } = schema;
  return ruled({ ...schema, nullable: true }, (value) =>
    value === null ? undefined : problem(value),
  );
}

/** Describes and reads what may also be absent or null. */
export function optional<T, R>(schema: Ruled<T>, read: (value: T | null) => R) {
  return t
    .Transform(orNull({ ...schema, default: null }))
    .Decode(read)
    .Encode(() => null);
}

/** Describes text that PostgreSQL can store. */
export function text(min: number, max: number, shown: SchemaOptions = {}): Ruled<string> {
  const wrong = `must be text of ${min} to ${max} characters`;
  return ruled(
    { type: "string", minLength: min, maxLength: max, pattern: NO_NUL, ...shown },
    (value) => (isText(value, min, max) ? undefined : wrong),
  );
}

export const NO_NUL = "^[^\\0]*$";

/** Describes a whole number of JSON. */
export function whole(min: number, max: number, shown: SchemaOptions = {}): Ruled<number> {
  return ruled({ type: "integer", minimum: min, maximum: max, ...shown }, (value) =>
    wholeProblem(value, min, max),
  );
}

/** Describes and reads a whole number in decimal digits, as in a query, or of JSON. */
export function decimal(min: number, max: number, shown: SchemaOptions = {}) {
  // Elysia's own integers would also be read from `1e3`, `0x10` and `1.0`.
  const schema = ruled<number>({ type: "integer", minimum: min, maximum: max, ...shown }, (value) =>
    wholeProblem(typeof value === "string" ? Number(parseDecimal(value)) : value, min, max),
  );
  return t.Transform(schema).Decode(Number).Encode(Number);
}

export function wholeProblem(value: unknown, min: number, max: number): string | undefined {
  return typeof value === "number" && Number.isInteger(value) && value >= min && value <= max
    ? undefined
    : notWhole(min, max);
}

export function notWhole(min: number | bigint, max: number | bigint): string {
  return `must be a whole number from ${min} to ${max}`;
}

/** Describes a list. */
export function list<Item extends TSchema>(items: Item, max: number, shown: SchemaOptions = {}) {
  const problem: Problem = (value) =>
    Array.isArray(value) ? `must have at most ${max} items` : "must be a list";
  return t.Array(items, { maxItems: max, problem, ...shown });
}
