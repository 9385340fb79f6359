import { readConfig } from "../../src/platform/config/config.ts";
import { openDatabase } from "../../src/platform/database/database.ts";
import { openObjects } from "../../src/platform/objects/open-objects.ts";
import { imageArchiver } from "./archived-images.ts";

/*
 * Archives images, and kills itself, as `kill -9` would, at a moment of the step:
 *   DIE_AT=claimed|written|swapping|swapped bun test/support/archive-images-and-die.ts
 */
const config = readConfig();
if (config.databaseUrl === undefined) throw new Error("DATABASE_URL is needed");
const sql = openDatabase(config.databaseUrl);
const objects = await openObjects(config);
const archiver = imageArchiver(
  { sql, objects },
  {
    at: async (moment) => {
      if (moment !== process.env["DIE_AT"]) return;
      process.kill(process.pid, "SIGKILL");
      // Waits, because nothing may happen until the signal arrives.
      for (;;) await Bun.sleep(1000);
    },
  },
);
await archiver.step();
