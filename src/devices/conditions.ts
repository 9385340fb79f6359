import { type SchemaOptions } from "@sinclair/typebox";
import { t } from "elysia";

import { AppError } from "../platform/errors.ts";
import { isRecord } from "../platform/json.ts";
import { NO_NUL, readBy } from "../platform/schema.ts";
import { longerThan, wrongText } from "../platform/text.ts";
import { KEY, wrongKey } from "./properties.ts";

/** Limit of groups within groups. */
export const DEPTH_MAX = 16;
export const LEAVES_MAX = 200;
export const OPERAND_LENGTH_MAX = 1024;

const TEXT_OPERATORS = ["str_eq", "str_exists"] as const;
const NUMBER_OPERATORS = ["int_eq", "int_gt", "int_gte", "int_lt", "int_lte"] as const;
const JOINS = ["AND", "OR"] as const;
const FIELDS = ["conditions", "key", "value", "operator", "join_type"];
const INTEGER = /^[ \t\n\v\f\r]*([+-]?)(\d+)[ \t\n\v\f\r]*$/;
const INTEGER_MIN = -(2n ** 63n);
const INTEGER_MAX = 2n ** 63n - 1n;

export type TextOperator = (typeof TEXT_OPERATORS)[number];
export type NumberOperator = (typeof NUMBER_OPERATORS)[number];

export type TextLeaf = { type: "text"; key: string; operator: TextOperator; value: string };
/** A comparison with a number; `value` is the operand as the client wrote it. */
export type NumberLeaf = {
  type: "number";
  key: string;
  operator: NumberOperator;
  value: string;
  number: bigint;
};
export type Leaf = TextLeaf | NumberLeaf;
export type Group = { type: "group"; join: (typeof JOINS)[number]; conditions: Condition[] };
/** A condition tree that devices meet or not. */
export type Condition = { type: "all" } | Group | Leaf;

/** A condition as the wire has it, with all of its keys. */
export type ConditionNode = {
  conditions: ConditionNode[] | null;
  key: string | null;
  value: string | null;
  operator: string | null;
  join_type: string | null;
};

const NAME = "Condition";
const REF = { $ref: `#/components/schemas/${NAME}` };
const NULL = { nullable: true, enum: [null] };
const TEXT = { type: "string", nullable: true };
const EVERYBODY = { conditions: NULL, key: NULL, value: NULL, operator: NULL, join_type: NULL };
const LEAF = { conditions: NULL, key: KEY, join_type: TEXT };
const OPERAND = { type: "string", maxLength: OPERAND_LENGTH_MAX };

/** Description of condition trees for `/docs`, by the name that refers to it. */
export const CONDITION_MODEL = {
  [NAME]: t.Unsafe({
    description: `Devices that meet it; {} is all devices. At most ${LEAVES_MAX} comparisons, in groups of at most ${DEPTH_MAX} levels.`,
    anyOf: [
      { type: "object", properties: EVERYBODY, additionalProperties: false },
      {
        type: "object",
        required: ["key", "operator", "value"],
        properties: {
          ...LEAF,
          operator: { enum: TEXT_OPERATORS },
          value: { ...OPERAND, pattern: NO_NUL },
        },
      },
      {
        type: "object",
        required: ["key", "operator", "value"],
        properties: {
          ...LEAF,
          operator: { enum: NUMBER_OPERATORS },
          value: { ...OPERAND, pattern: INTEGER.source, format: "int64" },
        },
      },
      {
        type: "object",
        required: ["conditions", "join_type"],
        properties: {
          conditions: { type: "array", minItems: 1, items: REF },
          join_type: { enum: JOINS },
          key: TEXT,
          value: TEXT,
          operator: TEXT,
        },
      },
    ],
  }),
};

/** Describes and reads a condition tree. */
export function conditionTree(shown: SchemaOptions = {}) {
  return readBy({ allOf: [REF], ...shown }, parseConditions);
}

/** Parses a condition tree. Throws an AppError that names the first clause at fault. */
export function parseConditions(value: unknown): Condition {
  return new Parser().node(value, "", 0);
}

class Parser {
  #leaves = 0;

  node(value: unknown, path: string, depth: number): Condition {
    if (!isRecord(value)) throw wrong(path, "must be an object");
    const { conditions = null } = value;
    for (const name of ["key", "value", "operator", "join_type"]) textOrNull(value, name, path);
    if (conditions !== null) return this.#group(conditions, value["join_type"], path, depth);
    if (++this.#leaves > LEAVES_MAX)
      throw wrong(path, `is more than the ${LEAVES_MAX} conditions that a tree may have`);
    return isEmpty(value, path) ? { type: "all" } : leaf(value, path);
  }

  #group(conditions: unknown, joinType: unknown, path: string, depth: number): Group {
    const at = field(path, "conditions");
    if (!Array.isArray(conditions)) throw wrong(at, "must be a list or null");
    if (depth === DEPTH_MAX) throw wrong(at, `is nested deeper than ${DEPTH_MAX} levels`);
    const join = JOINS.find((known) => known === joinType);
    if (join === undefined) throw wrong(field(path, "join_type"), "must be AND or OR");
    if (conditions.length === 0) throw wrong(at, "must not be empty");
    return {
      type: "group",
      join,
      conditions: conditions.map((child: unknown, index) =>
        this.node(child, `${at}[${index}]`, depth + 1),
      ),
    };
  }
}

/**
 * Returns whether a node is empty, which selects all devices. A node with only unknown fields is
 * refused, so that a misspelt field does not select all devices by accident.
 */
function isEmpty(node: Record<string, unknown>, path: string): boolean {
  if (FIELDS.some((name) => (node[name] ?? null) !== null)) return false;
  const names = Object.keys(node);
  if (names.length === 0 || names.some((name) => FIELDS.includes(name))) return true;
  throw wrong(path, `has none of ${FIELDS.join(", ")}`);
}

function leaf(node: Record<string, unknown>, path: string): Leaf {
  const key = textOrNull(node, "key", path);
  const value = textOrNull(node, "value", path);
  const wanted = textOrNull(node, "operator", path);
  const textOperator = TEXT_OPERATORS.find((known) => known === wanted);
  const numberOperator = NUMBER_OPERATORS.find((known) => known === wanted);
  const operators = [...TEXT_OPERATORS, ...NUMBER_OPERATORS].join(", ");
  if (textOperator === undefined && numberOperator === undefined)
    throw wrong(field(path, "operator"), `must be one of ${operators}`);
  const wrongly = wrongKey(key);
  if (key === null || wrongly !== undefined)
    throw wrong(field(path, "key"), wrongly ?? "must be a string");
  const at = field(path, "value");
  if (value === null) throw wrong(at, "must be a string");
  if (longerThan(value, OPERAND_LENGTH_MAX))
    throw wrong(at, `must have at most ${OPERAND_LENGTH_MAX} characters`);
  if (numberOperator !== undefined)
    return { type: "number", key, operator: numberOperator, value, number: integer(value, at) };
  const wrongValue = wrongText(value);
  if (textOperator === undefined || wrongValue !== undefined)
    throw wrong(at, wrongValue ?? "is not for this operator");
  return { type: "text", key, operator: textOperator, value };
}

function integer(text: string, at: string): bigint {
  const [, sign, digits] = INTEGER.exec(text) ?? [];
  if (digits === undefined) throw wrong(at, "must be a whole number in digits");
  const number = sign === "-" ? -BigInt(digits) : BigInt(digits);
  if (number < INTEGER_MIN || number > INTEGER_MAX)
    throw wrong(at, `must be from ${INTEGER_MIN} to ${INTEGER_MAX}`);
  return number;
}

function textOrNull(node: Record<string, unknown>, name: string, path: string): string | null {
  const value = node[name] ?? null;
  if (value !== null && typeof value !== "string")
    throw wrong(field(path, name), "must be a string or null");
  return value;
}

function field(path: string, name: string): string {
  return path === "" ? name : `${path}.${name}`;
}

function wrong(path: string, what: string): AppError {
  return new AppError("invalid", `wrong condition clause ${path === "" ? "it" : path} ${what}`);
}

/** Returns the tree in the form of the wire, which parses to the same tree. */
export function normaliseConditions(tree: Condition): ConditionNode {
  const node = { conditions: null, key: null, value: null, operator: null, join_type: null };
  if (tree.type === "all") return node;
  if (tree.type !== "group")
    return { ...node, key: tree.key, value: tree.value, operator: tree.operator };
  const conditions = tree.conditions.map((child) => normaliseConditions(child));
  return { ...node, conditions, join_type: tree.join };
}
