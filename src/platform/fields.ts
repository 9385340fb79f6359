import { AppError } from "./errors.ts";
import { recordOf } from "./json.ts";
import { textOf } from "./text.ts";
import { wholeOf } from "./whole-numbers.ts";

/** Fields of an untrusted JSON object. Each method throws 400 with a message that names the field. */
export class Fields {
  readonly #values: Map<string, unknown>;

  /** Throws 400 unless the value is a JSON object. */
  constructor(value: unknown, what = "the body") {
    this.#values = new Map(Object.entries(recordOf(value, what)));
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
    return wholeOf(this.get(name), name, min, max);
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
