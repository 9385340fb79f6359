import { AppError } from "../platform/errors.ts";
import { Fields } from "../platform/fields.ts";
import { textOf } from "../platform/text.ts";
import { type Queryable } from "../platform/database/database.ts";
import { whereSql } from "./condition-sql.ts";
import {
  type Condition,
  type ConditionNode,
  normaliseConditions,
  parseConditions,
} from "./conditions.ts";
import { isRecord } from "../platform/json.ts";

const EXTERNAL_IDS_MAX = 10_000;
/** Limit of external ids in lookups; no device can be created with a longer one. */
export const EXTERNAL_ID_TEXT_MAX = 1024;

/**
 * Devices that a campaign is sent to: those that meet the conditions and, if ids are given, have
 * one of these ids.
 */
export type Recipients = { conditions: Condition; externalIds: string[] | undefined };

/**
 * Reads recipients from a request. Throws 400, also for an empty list of ids: in a search that
 * means any device, while the author of a campaign may mean none.
 */
export function parseRecipients(given: { conditions: unknown; external_ids: unknown }): Recipients {
  const conditions = parseConditions(given.conditions);
  if (given.external_ids === undefined) return { conditions, externalIds: undefined };
  const ids = new Fields(given)
    .list("external_ids", EXTERNAL_IDS_MAX)
    .map((id) => textOf(id, "external_ids", 0, EXTERNAL_ID_TEXT_MAX));
  if (ids.length === 0)
    throw new AppError(
      "invalid",
      "external_ids must not be empty: leave it out to reach all devices that meet the conditions",
    );
  return { conditions, externalIds: [...new Set(ids)] };
}

/**
 * Recipients as the database stores them: only the conditions or, if ids are given, an object with
 * both.
 */
type StoredRecipients = ConditionNode | { conditions: ConditionNode; external_ids: string[] };

/**
 * Returns the form to store. With ids it is deliberately not a condition tree, so that a worker
 * that does not support ids refuses the campaign instead of sending it to everybody who meets the
 * conditions.
 */
export function storeRecipients({ conditions, externalIds }: Recipients): StoredRecipients {
  const tree = normaliseConditions(conditions);
  return externalIds === undefined ? tree : { conditions: tree, external_ids: externalIds };
}

export function readRecipients(stored: unknown): Recipients {
  return isRecord(stored) && "external_ids" in stored
    ? parseRecipients({ conditions: stored["conditions"], external_ids: stored["external_ids"] })
    : { conditions: parseConditions(stored), externalIds: undefined };
}

/**
 * Returns a WHERE clause that selects the recipients among devices `d`; `mode` as for `whereSql`.
 */
export function recipientsSql(
  sql: Queryable,
  { conditions, externalIds }: Recipients,
  mode: Parameters<typeof whereSql>[2],
) {
  const meets = whereSql(sql, conditions, mode);
  return externalIds === undefined
    ? meets
    : sql`${meets} and d.external_id = any(${externalIds}::text[])`;
}
