import { type PendingQuery, type Row } from "postgres";

import { type Queryable } from "../platform/database/database.ts";
import { type Condition, type Group, type Leaf, type NumberLeaf } from "./conditions.ts";

type Fragment = PendingQuery<Row[]>;

/**
 * Returns a WHERE clause that selects the devices `d` that meet a condition. "indexed" finds them
 * among all devices. "filter" is for devices that are walked anyway: it reads only the row, and
 * offers the planner no index in place of the walk.
 */
export function whereSql(sql: Queryable, tree: Condition, mode: "indexed" | "filter"): Fragment {
  const condition = simplify(tree);
  if (condition.type === "all") return sql`true`;
  if (mode === "filter") return onRow(sql, [condition]);
  if (condition.type === "group" && condition.join === "AND")
    return inAll(sql, condition.conditions);
  return inAll(sql, [condition]);
}

type Selective = Group | Leaf;

/** Removes match-all nodes, groups of one, and groups directly in groups of their own kind. */
function simplify(tree: Condition): Condition {
  if (tree.type !== "group") return tree;
  const children = tree.conditions.map((child) => simplify(child));
  const selective = children.filter(isSelective);
  if (selective.length === 0 || (selective.length < children.length && tree.join === "OR"))
    return { type: "all" };
  const conditions = selective.flatMap((child) =>
    child.type === "group" && child.join === tree.join ? child.conditions : [child],
  );
  const [only] = conditions;
  return conditions.length === 1 && only !== undefined ? only : { ...tree, conditions };
}

function isSelective(condition: Condition): condition is Selective {
  return condition.type !== "all";
}

/** Selects devices that meet all conditions, by the row itself. */
function onRow(sql: Queryable, conditions: Condition[]): Fragment {
  return sql`jsonb_path_match(d.properties, ${pathOf(conditions, "AND")}::jsonpath, silent => true)`;
}

/** Selects devices by the index on properties, which serves all conditions but ranges of numbers. */
function inIndex(sql: Queryable, conditions: Condition[], join: Group["join"]): Fragment {
  return sql`d.properties @@ ${pathOf(conditions, join)}::jsonpath`;
}

/**
 * Selects devices that meet all conditions, by one lookup in the index and semijoins. The planner
 * chooses which of them comes first.
 */
function inAll(sql: Queryable, conditions: Condition[]): Fragment {
  const { plain, ranges, groups } = sorted(conditions);
  const clauses = [
    ...(plain.length === 0 ? [] : [inIndex(sql, plain, "AND")]),
    ...spans(ranges).map((span) => inSpan(sql, span)),
    ...groups.map((group) => sql`d.id in (${idsOfAny(sql, group.conditions)})`),
  ];
  return clauses.reduce((before, clause) => sql`${before} and ${clause}`);
}

/**
 * Selects the ids of devices that meet any of the conditions, each by its own index. An OR would
 * scan all devices.
 */
function idsOfAny(sql: Queryable, conditions: Condition[]): Fragment {
  const { plain, ranges, groups } = sorted(conditions);
  const where = [
    ...(plain.length === 0 ? [] : [inIndex(sql, plain, "OR")]),
    ...groups.map((group) => inAll(sql, group.conditions)),
  ];
  const queries = [
    ...where.map((clause) => sql`select d.id from devices d where ${clause}`),
    ...loosest(ranges).map((range) => idsInSpan(sql, spanOf(range))),
  ];
  return queries.reduce((before, query) => sql`${before} union all ${query}`);
}

function sorted(conditions: Condition[]) {
  const plain: Condition[] = [];
  const ranges: NumberLeaf[] = [];
  const groups: Group[] = [];
  for (const condition of conditions)
    if (!hasRange(condition)) plain.push(condition);
    else if (condition.type === "number") ranges.push(condition);
    else if (condition.type === "group") groups.push(condition);
  return { plain, ranges, groups };
}

function hasRange(condition: Condition): boolean {
  if (condition.type === "group") return condition.conditions.some(hasRange);
  return condition.type === "number" && condition.operator !== "int_eq";
}

/** Bounds for the numbers of one property: one of them is above the lower, and one below the upper. */
type Span = { key: string; lower?: NumberLeaf; upper?: NumberLeaf };

function spanOf(range: NumberLeaf): Span {
  return range.operator === "int_gt" || range.operator === "int_gte"
    ? { key: range.key, lower: range }
    : { key: range.key, upper: range };
}

/** Merges the ranges of each property, because each of them alone may hold for nearly every device. */
function spans(ranges: NumberLeaf[]): Span[] {
  const byKey = new Map<string, Span>();
  for (const range of ranges) {
    const before = byKey.get(range.key) ?? { key: range.key };
    const { lower, upper } = spanOf(range);
    if (lower !== undefined && (before.lower === undefined || isTighter(lower, before.lower)))
      before.lower = lower;
    if (upper !== undefined && (before.upper === undefined || isTighter(upper, before.upper)))
      before.upper = upper;
    byKey.set(range.key, before);
  }
  return [...byKey.values()];
}

/** Keeps the widest range per side of each property; in an OR it includes the narrower ones. */
function loosest(ranges: NumberLeaf[]): NumberLeaf[] {
  const bySide = new Map<string, NumberLeaf>();
  for (const range of ranges) {
    const side = `${spanOf(range).lower === undefined ? "upper" : "lower"} ${range.key}`;
    const before = bySide.get(side);
    if (before === undefined || isTighter(before, range)) bySide.set(side, range);
  }
  return [...bySide.values()];
}

/** Returns whether the first bound admits fewer numbers than the second one of the same side. */
function isTighter(one: NumberLeaf, other: NumberLeaf): boolean {
  if (one.number === other.number) return one.operator === "int_gt" || one.operator === "int_lt";
  return one.number > other.number === (spanOf(one).lower !== undefined);
}

function inSpan(sql: Queryable, span: Span): Fragment {
  const found = sql`d.id in (${idsInSpan(sql, span)})`;
  const { lower, upper } = span;
  // Several numbers may meet one bound each with none between them, so the row decides.
  return lower === undefined || upper === undefined
    ? found
    : sql`${found} and ${onRow(sql, [lower, upper])}`;
}

/** Selects ids by the bounds. With both of them it includes devices that NaN marks as having several numbers. */
function idsInSpan(sql: Queryable, { key, lower, upper }: Span): Fragment {
  const above = lower && sql`value ${compare(sql, lower)} ${String(lower.number)}::numeric`;
  const below = upper && sql`value ${compare(sql, upper)} ${String(upper.number)}::numeric`;
  // PostgreSQL sorts NaN above all numbers.
  let holds = below ?? sql`${above ?? sql`true`} and value < 'NaN'`;
  if (above !== undefined && below !== undefined)
    holds = sql`(${above} and ${below} or value = 'NaN')`;
  return sql`select device_id from device_numbers where key = ${key} and ${holds}`;
}

function compare(sql: Queryable, { operator }: NumberLeaf): Fragment {
  if (operator === "int_gt") return sql`>`;
  if (operator === "int_gte") return sql`>=`;
  return operator === "int_lt" ? sql`<` : sql`<=`;
}

const COMPARISONS = {
  int_eq: "==",
  int_gt: ">",
  int_gte: ">=",
  int_lt: "<",
  int_lte: "<=",
} as const;

function pathOf(conditions: Condition[], join: Group["join"]): string {
  return conditions.map(jsonPath).join(join === "AND" ? " && " : " || ");
}

/**
 * Returns a condition as jsonpath. Its lax mode compares a list element by element, and values of
 * different types are neither equal nor less nor greater. Texts are quoted as in JSON; they hold no
 * NUL, which jsonpath refuses.
 */
function jsonPath(condition: Condition): string {
  if (condition.type === "all") return "(1 == 1)";
  if (condition.type === "group") return `(${pathOf(condition.conditions, condition.join)})`;
  const property = `$.${JSON.stringify(condition.key)}`;
  if (condition.type === "number")
    return `${property} ${COMPARISONS[condition.operator]} ${condition.number}`;
  const text = JSON.stringify(condition.value);
  if (condition.operator === "str_eq") return `${property} == ${text}`;
  return `(${property}.type() == "array" && ${property}[*] == ${text})`;
}
