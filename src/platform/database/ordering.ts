import { type Queryable } from "./database.ts";

/** Explanation of ordering for the descriptions of routes. */
export const ORDER_BYS_RULE =
  "comma-separated, a leading - means descending; other names are ignored, and the id breaks ties";

export type OrderBy = { column: string; isDescending: boolean };

/**
 * Converts names of a query to columns; a leading `-` means descending. Ignores names that are not
 * keys of `columns`.
 */
export function ordering(names: string[], columns: Record<string, string>): OrderBy[] {
  const known = new Map(Object.entries(columns));
  return names.flatMap((name) => {
    const isDescending = name.startsWith("-");
    const column = known.get(name.slice(isDescending ? 1 : 0));
    return column === undefined ? [] : [{ column, isDescending }];
  });
}

/**
 * Returns an `order by` clause, with the id last so that pages do not overlap. Columns may be
 * qualified.
 */
export function orderSql(sql: Queryable, orderBys: OrderBy[], id: string) {
  let clause = sql``;
  for (const { column, isDescending } of orderBys)
    clause = isDescending ? sql`${clause} ${sql(column)} desc,` : sql`${clause} ${sql(column)},`;
  return sql`order by ${clause} ${sql(id)}`;
}
