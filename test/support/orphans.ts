import { pino } from "pino";

import { Orphans, type OrphansOptions } from "../../src/log/recovery/orphans.ts";
import { type TestApp, type TestSession } from "./app.ts";
import { aBatch } from "./batches.ts";
import { indexState } from "./index-state.ts";
import { type MadeRecord } from "./made-segment.ts";

/** Makes everything old enough, and every look a pass over everything. */
export const NO_GRACE = { graceMs: -1000, passMs: 0 };
export const NOTHING = { adopted: 0, deleted: 0, kept: 0, damaged: 0 };
export const CHUNK = new Uint8Array(1000).fill(7);

export function batch({ sessionID }: TestSession, salt = ""): MadeRecord {
  return { kind: "batch", sessionID, body: aBatch({ salt }) };
}

export function chunk({ sessionID }: TestSession): MadeRecord {
  return { kind: "chunk", sessionID, body: CHUNK };
}

export function orphansOf(
  { sql, objects }: Pick<TestApp, "sql" | "objects">,
  options: Partial<OrphansOptions> = {},
): Orphans {
  return new Orphans({ sql, objects, log: pino({ level: "silent" }) }, options);
}

export const stateOf = async ({ sql, objects }: TestApp) => await indexState(sql, objects);

export async function keysOf({ objects }: TestApp): Promise<string[]> {
  return (await Array.fromAsync(objects.list("segments/"))).map(({ key }) => key);
}
