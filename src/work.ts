import { constants, setPriority } from "node:os";

import { whereSql } from "./devices/condition-sql.ts";
import { parseConditions } from "./devices/conditions.ts";
import { Worker } from "./notifications/worker.ts";
import { type Config } from "./platform/config.ts";
import { openDatabase } from "./platform/database.ts";
import { openLog } from "./platform/log.ts";
import { openSender } from "./push/open-sender.ts";

/** Sends campaigns until the signal. */
export async function runWork(
  config: Config,
  databaseUrl: string,
  signal: AbortSignal,
): Promise<void> {
  // Where a serving process wants the same core, it goes first: clients wait for it.
  setPriority(constants.priority.PRIORITY_BELOW_NORMAL);
  const log = openLog(config.logLevel);
  const sql = openDatabase(databaseUrl);
  await using sender = await openSender(config.push, log);
  const worker = new Worker({
    sql,
    sender,
    filter: (transaction, conditions) => whereSql(transaction, conditions, "filter"),
    parse: parseConditions,
    log,
  });
  log.info(sender.canSend, "working");
  await worker.run(signal);
  await sql.end({ timeout: 1 });
  log.info("stopped");
}
