import { type PendingQuery, type Row } from "postgres";

import { type Queryable } from "../platform/database/database.ts";
import { type Condition, type Group, type Leaf, type NumberLeaf } from "./conditions.ts";

type Fragment = PendingQuery<Row[]>;

/**
 * The devices `d` that a condition means, for a where clause. "indexed" finds them among all devices; "filter" is for devices that
 * are walked anyway: it looks at nothing but the row, and no index tempts the planner away from the walk.
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

/** Without match-all nodes, groups of one, and groups directly in groups of their own kind. */
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

/** Devices of which all of these hold, looked for in the row itself. */
function onRow(sql: Queryable, conditions: Condition[]): Fragment {
  return sql`jsonb_path_match(d.properties, ${pathOf(conditions, "AND")}::jsonpath, silent => true)`;
}

/** The same by the index on properties, which serves any conditions but ranges of numbers. */
function inIndex(sql: Queryable, conditions: Condition[], join: Group["join"]): Fragment {
  return sql`d.properties @@ ${pathOf(conditions, join)}::jsonpath`;
}

/** Devices of which all of these hold: one look at the index and semijoins, among which the planner chooses where to begin. */
function inAll(sql: Queryable, conditions: Condition[]): Fragment {
  const { plain, ranges, groups } = sorted(conditions);
  const clauses = [
    ...(plain.length === 0 ? [] : [inIndex(sql, plain, "AND")]),
    ...spans(ranges).map((span) => inSpan(sql, span)),
    ...groups.map((group) => sql`d.id in (${idsOfAny(sql, group.conditions)})`),
  ];
  return clauses.reduce((before, clause) => sql`${before} and ${clause}`);
}

/** The ids of the devices of which any of these holds: each part by its own index, where an OR would look at all devices. */
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

/** What is asked of the numbers of one property: one of them is above a bound, and one below another. */
type Span = { key: string; lower?: NumberLeaf; upper?: NumberLeaf };

function spanOf(range: NumberLeaf): Span {
  return range.operator === "int_gt" || range.operator === "int_gte"
    ? { key: range.key, lower: range }
    : { key: range.key, upper: range };
}

/** Ranges of one property together, because each of them alone may hold for nearly every device. */
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

/** Of any number of ranges one for each side of each property: what is in another one is in that one, too. */
function loosest(ranges: NumberLeaf[]): NumberLeaf[] {
  const bySide = new Map<string, NumberLeaf>();
  for (const range of ranges) {
    const side = `${spanOf(range).lower === undefined ? "upper" : "lower"} ${range.key}`;
    const before = bySide.get(side);
    if (before === undefined || isTighter(before, range)) bySide.set(side, range);
  }
  return [...bySide.values()];
}

/** Whether less is on this side of the first bound than on the same side of the second. */
function isTighter(one: NumberLeaf, other: NumberLeaf): boolean {
  if (one.number === other.number) return one.operator === "int_gt" || one.operator === "int_lt";
  return one.number > other.number === (spanOf(one).lower !== undefined);
}

function inSpan(sql: Queryable, span: Span): Fragment {
  const found = sql`d.id in (${idsInSpan(sql, span)})`;
  const { lower, upper } = span;
  // Of several numbers one may be above and another below, with none between: such devices are all looked at.
  return lower === undefined || upper === undefined
    ? found
    : sql`${found} and ${onRow(sql, [lower, upper])}`;
}

/** With both bounds also the devices where NaN tells of several numbers. */
function idsInSpan(sql: Queryable, { key, lower, upper }: Span): Fragment {
  const above = lower && sql`value ${compare(sql, lower)} ${String(lower.number)}::numeric`;
  const below = upper && sql`value ${compare(sql, upper)} ${String(upper.number)}::numeric`;
  // NaN is greater than all numbers here.
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
 * In the lax mode of jsonpath a list is compared element by element, and values of different types are not equal, less or greater.
 * Keys and texts are quoted as in JSON, except that jsonpath refuses NUL, which neither can have.
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
