import { AppError } from "../platform/errors.ts";
import { Fields, textOf } from "../platform/fields.ts";
import { type Queryable } from "../platform/database.ts";
import { whereSql } from "./condition-sql.ts";
import {
  type Condition,
  type ConditionNode,
  normaliseConditions,
  parseConditions,
} from "./conditions.ts";
import { isRecord } from "../platform/json.ts";

const EXTERNAL_IDS_MAX = 10_000;
/** Longer ids name no device, since none may be made with one. */
export const EXTERNAL_ID_TEXT_MAX = 1024;

/** The devices that a campaign goes to: those that meet the conditions and, where ids are named, are among these. */
export type Recipients = { conditions: Condition; externalIds: string[] | undefined };

/**
 * Reads recipients from a request. An empty list of ids is refused: for a search it means any device, while its author may have
 * meant none. Throws 400.
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

/** How recipients are stored: as their conditions or, where ids are named, as an object with both. */
type StoredRecipients = ConditionNode | { conditions: ConditionNode; external_ids: string[] };

/**
 * The stored form. One with ids is no condition tree, so that a worker which does not know of ids refuses to send it instead of
 * sending it to everybody who meets the conditions.
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

/** A where clause for the recipients among devices `d`; `mode` as for `whereSql`. */
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
