import { indexSegment } from "../../src/log/segment-index.ts";
import { readConfig } from "../../src/platform/config/config.ts";
import { startServer } from "../../src/processes/server.ts";
import { FaultyObjects } from "./faulty-objects.ts";

/*
 * A server that kills itself, as `kill -9` would, at a step of its n-th commit:
 *   DIE_AT=before-put|after-put|after-index DIE_ON=n bun test/support/serve-and-die.ts
 */
const step = process.env["DIE_AT"];
const on = Number(process.env["DIE_ON"]);
const config = readConfig();
if (config.databaseUrl === undefined || !Number.isInteger(on))
  throw new Error("DATABASE_URL, DIE_AT and DIE_ON are needed");

let puts = 0;
let indexed = 0;
const objects = new FaultyObjects();
objects.otherwise = async (_put, store) => {
  const dies = ++puts === on;
  if (step === "before-put" && dies) await die();
  await store();
  if (step === "after-put" && dies) await die();
};

await startServer(config, config.databaseUrl, {
  wrapObjects: objects.wrap,
  index: async (sql, segment) => {
    const counts = await indexSegment(sql, segment);
    if (step === "after-index" && ++indexed === on) await die();
    return counts;
  },
});

async function die(): Promise<never> {
  process.kill(process.pid, "SIGKILL");
  // Waits, because nothing may happen until the signal arrives.
  for (;;) await Bun.sleep(1000);
}
