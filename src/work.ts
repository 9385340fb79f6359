import { constants, setPriority } from "node:os";

import { whereSql } from "./devices/condition-sql.ts";
import { parseConditions } from "./devices/conditions.ts";
import { Worker } from "./notifications/worker.ts";
import { type Config } from "./platform/config.ts";
import { openDatabase } from "./platform/database.ts";
import { openLog } from "./platform/log.ts";
import { openObjects } from "./platform/open-objects.ts";
import { openSender } from "./push/open-sender.ts";
import { tellReady } from "./supervisor.ts";
import { BuildGarbage } from "./updates/garbage.ts";

/** Sends campaigns, and removes builds that nothing refers to, until the signal. */
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
  await using objects = await openObjects(config);
  const garbage = new BuildGarbage({ sql, objects, log });
  log.info(sender.canSend, "working");
  tellReady();
  await Promise.all([worker.run(signal), garbage.run(signal)]);
  await sql.end({ timeout: 1 });
  log.info("stopped");
}
