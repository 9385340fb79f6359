import { type Queryable } from "../platform/database/database.ts";

export type InvalidToken = {
  deviceId: number;
  token: string;
  /** Time in epoch ms since which the provider does not know the token; 0 if it does not say. */
  invalidSince: number;
};

/**
 * Returns common table expressions that mark tokens as invalid, for a statement that does more. A
 * device stays unmarked if it has another token by now, or was given the same one after that time.
 */
export function markInvalidSql(sql: Queryable, tokens: InvalidToken[]) {
  const ids = tokens.map(({ deviceId }) => deviceId);
  const texts = tokens.map(({ token }) => token);
  const since = tokens.map(({ invalidSince }) => invalidSince);
  return sql`invalid as (
      select devices.id from devices
      join unnest(${ids}::bigint[], ${texts}::text[], ${since}::float8[]) as told (id, token, since_ms) using (id)
      where push_token = token and (since_ms = 0 or token_set_at < to_timestamp(since_ms / 1000))
      -- Imports and other campaigns lock devices in this order, too, so that they cannot deadlock.
      order by external_id for update of devices
    ), marked as (
      update devices set token_invalid = true from invalid where devices.id = invalid.id
    )`;
}
