import { t } from "elysia";

import { Input } from "../platform/input.ts";
import { type Queryable } from "../platform/database/database.ts";
import { isRecord } from "../platform/json.ts";
import { list, text } from "../platform/schema.ts";
import { PushBody } from "../wire/jraze.ts";
import { whereSql } from "./condition-sql.ts";
import {
  type Condition,
  type ConditionNode,
  conditionTree,
  normaliseConditions,
} from "./conditions.ts";

const EXTERNAL_IDS_MAX = 10_000;
/** External id in lookups; no device can be created with such a long one. */
export const EXTERNAL_ID_TEXT = text(0, 1024);

/**
 * Devices that a campaign is sent to: those that meet the conditions and, if ids are given, have
 * one of these ids.
 */
export type Recipients = { conditions: Condition; externalIds: string[] | undefined };

// Refused if it is empty: in a search that means any device, but the author of a campaign may mean none.
const IDS = list(EXTERNAL_ID_TEXT, EXTERNAL_IDS_MAX, {
  minItems: 1,
  problem: (value: unknown) =>
    Array.isArray(value) && value.length === 0
      ? "must not be empty: leave it out to reach all devices that meet the conditions"
      : `must be a list of at most ${EXTERNAL_IDS_MAX} items`,
});

/** Fields that name the recipients of a campaign. */
export const RECIPIENTS = {
  conditions: conditionTree(),
  external_ids: t.Optional(
    t
      .Transform(IDS)
      .Decode((ids) => [...new Set(ids)])
      .Encode((ids) => ids),
  ),
};

export type RecipientFields = typeof RECIPIENTS;

/** Body of a count of recipients, which are all devices by default. */
export const EstimateBody = new PushBody({
  ...RECIPIENTS,
  conditions: conditionTree({ default: {} }),
});

const StoredRecipients = new Input(RECIPIENTS, { what: "recipients" });

/** Reads recipients as a campaign shows them. Throws 400. */
export function parseRecipients(given: { conditions: unknown; external_ids: unknown }): Recipients {
  const { conditions, external_ids: ids } = StoredRecipients.read(given);
  return { conditions, externalIds: ids };
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
    : parseRecipients({ conditions: stored, external_ids: undefined });
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
