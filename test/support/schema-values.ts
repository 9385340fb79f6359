import * as fc from "fast-check";
import { Type } from "typebox";
import { Format } from "typebox/format";
import { Check } from "typebox/schema";

/** The keywords of OpenAPI 3.0 that the documentation uses. */
export const Documented = Type.Cyclic(
  {
    Schema: Type.Object({
      type: Type.Optional(Type.String()),
      nullable: Type.Optional(Type.Boolean()),
      enum: Type.Optional(Type.Array(Type.Unknown())),
      anyOf: Type.Optional(Type.Array(Type.Ref("Schema"))),
      allOf: Type.Optional(Type.Array(Type.Ref("Schema"))),
      $ref: Type.Optional(Type.String()),
      properties: Type.Optional(Type.Record(Type.String(), Type.Ref("Schema"))),
      required: Type.Optional(Type.Array(Type.String())),
      additionalProperties: Type.Optional(Type.Union([Type.Boolean(), Type.Ref("Schema")])),
      maxProperties: Type.Optional(Type.Integer()),
      items: Type.Optional(Type.Ref("Schema")),
      minItems: Type.Optional(Type.Integer()),
      maxItems: Type.Optional(Type.Integer()),
      minimum: Type.Optional(Type.Number()),
      maximum: Type.Optional(Type.Number()),
      minLength: Type.Optional(Type.Integer()),
      maxLength: Type.Optional(Type.Integer()),
      pattern: Type.Optional(Type.String()),
      format: Type.Optional(Type.String()),
      "x-maxBytes": Type.Optional(Type.Integer()),
    }),
  },
  "Schema",
);
export type Documented = Type.Static<typeof Documented>;

Format.Set("int64", (digits) => {
  const value = /^\s*[+-]?\d+\s*$/.test(digits) ? BigInt(digits) : undefined;
  return value !== undefined && BigInt.asIntN(64, value) === value;
});

const REF = "#/components/schemas/";
const DEPTH = 3;
const ITEMS = 5;
const LENGTH = 30;
const TOO_MANY_MAX = 1000;
const NUMBER_MAX = 1e9;
const UNIT = fc.constantFrom(...Array.from("abcXYZ019 ._-:/\\\"'$%&=+?#\né键😀"));
/** Values of every type. At least one of them is forbidden by any schema that forbids something. */
const OTHERS = [null, true, 7, -1.5, "x", "a\0b", [], [[1]], {}, { "other field": 1 }];

/** Values of the schemas in an OpenAPI document. */
export class SchemaValues {
  readonly #named: Record<string, Documented>;

  constructor(named: Record<string, Documented>) {
    this.#named = named;
  }

  admits(schema: Documented, value: unknown): boolean {
    const $defs = Object.fromEntries(
      Object.entries(this.#named).map(([name, one]) => [name, jsonSchema(one)]),
    );
    return Check({ $defs, ...jsonSchema(schema) }, value);
  }

  /** Makes values that the schema admits. */
  admitted(schema: Documented, depth = DEPTH): fc.Arbitrary<unknown> {
    const { nullable, ...rest } = schema;
    if (nullable === true) return fc.oneof(fc.constant(null), this.admitted(rest, depth));
    const [target] = [...(schema.allOf ?? []), ...this.#targetOf(schema)];
    if (target !== undefined) return this.admitted(target, depth - 1);
    if (schema.enum !== undefined) return fc.constantFrom(...schema.enum);
    if (schema.anyOf !== undefined)
      return fc.oneof(
        ...schema.anyOf
          .filter((one) => depth > 0 || !JSON.stringify(one).includes(REF))
          .map((one) => this.admitted(one, depth)),
      );
    switch (schema.type) {
      case "string":
        return text(schema);
      case "integer":
        return fc.integer({
          min: schema.minimum ?? Number.MIN_SAFE_INTEGER,
          max: schema.maximum ?? Number.MAX_SAFE_INTEGER,
        });
      case "number":
        return fc
          .integer({
            min: 8 * Math.max(schema.minimum ?? -NUMBER_MAX, -NUMBER_MAX),
            max: 8 * Math.min(schema.maximum ?? NUMBER_MAX, NUMBER_MAX),
          })
          .map((eighths) => eighths / 8);
      case "boolean":
        return fc.boolean();
      case "array":
        return this.#list(schema, depth);
      case "object":
        return this.objects(schema, depth);
      case undefined:
      default:
        return fc.jsonValue();
    }
  }

  /** Makes values that the schema forbids; undefined if it admits all. */
  forbidden(schema: Documented, depth = DEPTH): fc.Arbitrary<unknown> | undefined {
    const others = OTHERS.filter((one) => !this.admits(schema, one));
    if (others.length === 0) return undefined;
    return fc
      .oneof(fc.constantFrom(...others), ...this.#spoilt(schema, depth))
      .filter((value) => !this.admits(schema, value));
  }

  /** Yields values that are nearly admitted. */
  *#spoilt(schema: Documented, depth: number): Generator<fc.Arbitrary<unknown>> {
    const { anyOf = [], allOf = [], maxLength, minimum, maximum, items, maxItems } = schema;
    if (depth > 0)
      for (const one of [...anyOf, ...allOf, ...this.#targetOf(schema)])
        yield* this.#spoilt(one, depth - 1);
    if (maxLength !== undefined) yield fc.constant("x".repeat(maxLength + 1));
    if (minimum !== undefined) yield fc.constant(minimum - 1);
    if (maximum !== undefined) yield fc.constant(maximum + 1);
    if (schema.type === "integer") yield fc.constant((minimum ?? 0) + 0.5);
    if (items !== undefined) {
      const wrong = this.forbidden(items, depth - 1);
      if (wrong !== undefined) yield wrong.map((item) => [item]);
      if (maxItems !== undefined && maxItems <= TOO_MANY_MAX)
        yield fc.constant(Array.from({ length: maxItems + 1 }, (_, nth) => `${nth}`));
    }
    if (schema.properties !== undefined) yield* this.#spoiltObjects(schema, depth);
  }

  *#spoiltObjects(schema: Documented, depth: number): Generator<fc.Arbitrary<unknown>> {
    const right = this.objects(schema, depth);
    for (const name of schema.required ?? [])
      yield right.map((object) =>
        Object.fromEntries(Object.entries(object).filter(([key]) => key !== name)),
      );
    for (const [name, property] of Object.entries(schema.properties ?? {})) {
      const wrong = this.forbidden(property, depth - 1);
      if (wrong !== undefined)
        yield fc.tuple(right, wrong).map(([object, value]) => ({ ...object, [name]: value }));
    }
    yield right.map((object) => ({ ...object, "other field": 1 }));
  }

  /** Makes objects that the schema admits. */
  objects(schema: Documented, depth = DEPTH): fc.Arbitrary<Record<string, unknown>> {
    const fields = Object.entries(schema.properties ?? {}).map(
      ([name, property]) => [name, this.admitted(property, depth)] as const,
    );
    const record = fc.record<Record<string, unknown>>(Object.fromEntries(fields), {
      requiredKeys: schema.required ?? [],
    });
    const { additionalProperties: others, maxProperties } = schema;
    if (others === false) return record;
    if (typeof others === "object")
      return fc.dictionary(fc.string({ unit: UNIT, minLength: 1 }), this.admitted(others, depth), {
        ...(maxProperties !== undefined && { maxKeys: maxProperties }),
      });
    const more = fc.option(fc.jsonValue(), { nil: undefined });
    return fc
      .tuple(record, more)
      .map(([object, value]) =>
        value === undefined ? object : { ...object, "other field": value },
      );
  }

  /** Makes texts of a query or form that these schemas admit. */
  texts(schemas: [name: string, schema: Documented][], required: string[]) {
    const properties = Object.fromEntries(schemas);
    const names = required.filter((name) => name in properties);
    return this.objects({ properties, required: names, additionalProperties: false });
  }

  /** Lists texts of a query or form that the schema forbids. */
  forbiddenTexts(schema: Documented): string[] {
    const { maxLength = 0, maximum = 0, minimum = 0, maxItems = 0 } = schema;
    const many = Array.from({ length: maxItems + 1 }, (_, nth) => nth).join(",");
    const long = "x".repeat(maxLength + 1);
    const texts = ["x", "-1", "1.5", "0x1", "a\0b", "TRUE", "1".repeat(30), many, long];
    return [...texts, `${maximum + 1}`, `${minimum - 1}`].filter(
      (given) => !this.admits(schema, meantBy(given, schema)),
    );
  }

  #list(schema: Documented, depth: number): fc.Arbitrary<unknown[]> {
    const { items = {}, minItems = 0, maxItems = ITEMS } = schema;
    const some = fc.array(this.admitted(items, depth), {
      minLength: minItems,
      maxLength: Math.min(maxItems, ITEMS),
    });
    if (maxItems > TOO_MANY_MAX) return some;
    const most = Array.from({ length: maxItems }, (_, nth) => `${nth}`);
    return this.admits(schema, most)
      ? fc.oneof({ arbitrary: some, weight: 9 }, fc.constant(most))
      : some;
  }

  #targetOf({ $ref }: Documented): Documented[] {
    const target = $ref === undefined ? undefined : this.#named[$ref.slice(REF.length)];
    return target === undefined ? [] : [target];
  }
}

/** Returns what a text of a query or form stands for, or the text itself. */
export function meantBy(given: string, { type }: Documented): unknown {
  if ((type === "integer" || type === "number") && /^-?\d+(?:\.\d+)?$/.test(given))
    return Number(given);
  if (type === "boolean" && (given === "true" || given === "false")) return given === "true";
  return type === "array" ? given.split(",").filter((item) => item !== "") : given;
}

function text(schema: Documented): fc.Arbitrary<string> {
  const { minLength = 0, maxLength = LENGTH, pattern = "", format } = schema;
  const rule = new RegExp(pattern);
  if (format === "date-time")
    return fc
      .date({ min: new Date("2100-01-01"), max: new Date("2199-01-01"), noInvalidDate: true })
      .map((date) => date.toISOString());
  if (format === "uuid") return fc.uuid();
  if (format === "int64")
    return fc
      .bigInt(-(2n ** 63n), 2n ** 63n - 1n)
      .map(String)
      .filter((digits) => rule.test(digits));
  if (pattern !== "" && !pattern.includes("[^\\0]")) return fc.stringMatching(rule);
  const some = fc.string({
    unit: UNIT,
    minLength,
    maxLength: Math.min(maxLength, minLength + LENGTH),
  });
  const bytesMax = schema["x-maxBytes"] ?? Number.POSITIVE_INFINITY;
  return fc
    .oneof({ arbitrary: some, weight: 9 }, fc.constant("😀".repeat(maxLength)))
    .filter((one) => rule.test(one) && Buffer.byteLength(one) <= bytesMax);
}

/** Translates a schema of OpenAPI 3.0 to JSON Schema. */
function jsonSchema({ nullable, ...schema }: Documented): Record<string, unknown> {
  const list = (schemas: Documented[] | undefined) => schemas?.map((one) => jsonSchema(one));
  const { anyOf, allOf, items, properties, additionalProperties: others, $ref, ...same } = schema;
  const translated = {
    ...same,
    ...(anyOf && { anyOf: list(anyOf) }),
    ...(allOf && { allOf: list(allOf) }),
    ...(items && { items: jsonSchema(items) }),
    ...(others !== undefined && {
      additionalProperties: typeof others === "object" ? jsonSchema(others) : others,
    }),
    ...($ref && { $ref: $ref.replace(REF, "#/$defs/") }),
    ...(properties && {
      properties: Object.fromEntries(
        Object.entries(properties).map(([name, one]) => [name, jsonSchema(one)]),
      ),
    }),
  };
  return nullable === true ? { anyOf: [translated, { type: "null" }] } : translated;
}
