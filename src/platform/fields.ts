import { AppError } from "./errors.ts";

/** Fields of an untrusted JSON object. Each method throws 400 with a message that names the field. */
export class Fields {
  readonly #values: Map<string, unknown>;

  /** Throws 400 unless the value is a JSON object. */
  constructor(value: unknown, what = "the body") {
    if (typeof value !== "object" || value === null || Array.isArray(value))
      throw new AppError("invalid", `${what} must be an object`);
    this.#values = new Map(Object.entries(value));
  }

  get(name: string): unknown {
    return this.#values.get(name);
  }

  /** Returns a text without NUL or lone surrogates, which PostgreSQL cannot store. */
  text(name: string, min: number, max: number): string {
    return textOf(this.get(name), name, min, max);
  }

  /** Like `text`, but returns undefined if the field is absent or null. */
  optionalText(name: string, max: number): string | undefined {
    const value = this.get(name) ?? undefined;
    return value === undefined ? undefined : textOf(value, name, 0, max);
  }

  integer(name: string, min: number, max: number): number {
    const value = this.get(name);
    if (typeof value !== "number" || !Number.isInteger(value) || value < min || value > max)
      throw new AppError("invalid", `${name} must be a whole number from ${min} to ${max}`);
    return value;
  }

  /** Like `integer`, but returns `absent` if the field is absent; refuses null. */
  integerOr(name: string, min: number, max: number, absent: number): number {
    return this.get(name) === undefined ? absent : this.integer(name, min, max);
  }

  /** Returns an empty list if the field is absent; refuses null. */
  list(name: string, max: number): unknown[] {
    const value = this.#values.has(name) ? this.get(name) : [];
    if (!Array.isArray(value)) throw new AppError("invalid", `${name} must be a list`);
    if (value.length > max) throw new AppError("invalid", `${name} must have at most ${max} items`);
    return value;
  }
}

export function textOf(value: unknown, name: string, min: number, max: number): string {
  const isText = typeof value === "string" && !value.includes("\0") && value.isWellFormed();
  // A character may take two UTF-16 code units.
  const length = isText && value.length > max ? Array.from(value.slice(0, 2 * max + 1)).length : 0;
  if (!isText || value.length < min || length > max)
    throw new AppError("invalid", `${name} must be text of ${min} to ${max} characters`);
  return value;
}
