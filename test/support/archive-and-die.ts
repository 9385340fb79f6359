import { Archiver } from "../../src/archives/archiver.ts";
import { ObjectGarbage } from "../../src/archives/object-garbage.ts";
import { SYSTEM_CLOCK } from "../../src/platform/clock.ts";
import { readConfig } from "../../src/platform/config/config.ts";
import { openDatabase } from "../../src/platform/database/database.ts";
import { openLog } from "../../src/platform/logger.ts";
import { openObjects } from "../../src/platform/objects/open-objects.ts";
import { WorkMetrics } from "../../src/platform/telemetry/work-metrics.ts";

/*
 * A process that archives what is there, and kills itself, as `kill -9` would, at a point of its first step:
 *   DIE_AT=leased|read|written|swapping|swapped bun test/support/archive-and-die.ts
 */
const config = readConfig();
const log = openLog("silent");
await using sql = openDatabase(config.databaseUrl ?? "");
await using objects = await openObjects(config);
const garbage = new ObjectGarbage({ sql, objects, log });
const archiver = new Archiver(
  { sql, objects, garbage, clock: SYSTEM_CLOCK, metrics: new WorkMetrics(), log },
  {
    afterS: 0,
    everyMs: 1000,
    at: async (moment) => {
      if (moment !== process.env["DIE_AT"]) return;
      process.kill(process.pid, "SIGKILL");
      // Waits, because nothing may happen until the signal arrives.
      for (;;) await Bun.sleep(1000);
    },
  },
);
await archiver.step();
