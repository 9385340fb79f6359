import {
  KindGuard,
  type StaticDecode,
  type TObject,
  type TProperties,
  type TSchema,
  TransformKind,
} from "@sinclair/typebox";
import { TypeCompiler } from "@sinclair/typebox/compiler";
import { type ValueError } from "@sinclair/typebox/errors";
import { Value } from "@sinclair/typebox/value";
import { t } from "elysia";

import { AppError } from "./errors.ts";
import { recordOf } from "./json.ts";
import { type Problem, isRuled } from "./schema.ts";

type Options = {
  /** Name of the whole in messages. */
  what?: string;
  /** Refuses unknown fields instead of leaving them out. */
  isClosed?: boolean;
};

type Field = {
  name: string;
  schema: TSchema;
  absent: unknown;
  isOptional: boolean;
  isRight: (value: unknown) => boolean;
  decode: ((value: unknown) => unknown) | undefined;
};

/** An object from outside. One schema describes it in `/docs`, has its defaults and reads it. */
export class Input<P extends TProperties> {
  readonly schema: TObject<P>;
  readonly #what: string;
  readonly #isClosed: boolean;
  readonly #fields: Field[];

  constructor(properties: P, { what = "the body", isClosed = false }: Options = {}) {
    this.schema = t.Object(properties, isClosed ? { additionalProperties: false } : {});
    this.#what = what;
    this.#isClosed = isClosed;
    this.#fields = Object.entries(properties).map(([name, schema]) => fieldOf(name, schema));
  }

  /** Reads a value. Throws 400 that names the first field at fault, in the order of the schema. */
  read(value: unknown): StaticDecode<TObject<P>>;
  read(value: unknown): unknown {
    const given = recordOf(value, this.#what);
    if (this.#isClosed) this.#refuseOthers(given);
    const read: Record<string, unknown> = {};
    for (const field of this.#fields) {
      const { name } = field;
      let one = given[name];
      if (one === undefined) one = field.absent;
      if (one === undefined && field.isOptional) continue;
      if (!field.isRight(one)) throw new AppError("invalid", problemOf(field, one));
      read[name] = field.decode === undefined ? one : field.decode(one);
    }
    return read;
  }

  #refuseOthers(given: Record<string, unknown>): void {
    const other = Object.keys(given).find((name) => !Object.hasOwn(this.schema.properties, name));
    if (other !== undefined)
      throw new AppError("invalid", `there is no field ${JSON.stringify(other.slice(0, 64))}`);
  }
}

function fieldOf(name: string, schema: TSchema): Field {
  return {
    name,
    schema,
    absent: schema.default,
    isOptional: KindGuard.IsOptional(schema),
    isRight: checkOf(schema),
    decode: KindGuard.IsTransform(schema) ? schema[TransformKind].Decode : undefined,
  };
}

function checkOf(schema: TSchema): (value: unknown) => boolean {
  if (isRuled(schema)) return (value) => schema.problem(value) === undefined;
  const compiled = TypeCompiler.Compile(schema);
  return (value) => compiled.Check(value);
}

function problemOf({ name, schema }: Field, value: unknown): string {
  const error = Value.Errors(schema, value).First();
  return error === undefined ? `${name} is malformed` : problemAt(`/${name}${error.path}`, error);
}

/** Describes an error of a schema; the path leads to the value at fault. */
export function problemAt(path: string, { schema, value, message }: ValueError): string {
  const place = path
    .slice(1)
    .replaceAll(/\/(\d+)/g, "[$1]")
    .replaceAll("/", ".");
  const problem: Problem | undefined = schema["problem"];
  return `${place} ${problem?.(value) ?? message}`;
}
