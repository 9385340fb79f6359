import { pino } from "pino";

import { Merger } from "../../src/archives/merge/merger.ts";
import { ObjectGarbage } from "../../src/archives/object-garbage.ts";
import { SYSTEM_CLOCK } from "../../src/platform/clock.ts";
import { type Sql, openDatabase } from "../../src/platform/database/database.ts";
import { FileObjects } from "../../src/platform/objects/file-objects.ts";
import { WorkMetrics } from "../../src/platform/telemetry/work-metrics.ts";
import { WrappedObjects } from "../../src/platform/objects/wrapped-objects.ts";

/*
 * Merges archives once, and kills itself, as `kill -9` would, at that step:
 *   DIE_AT=listed|writing|written|before-commit|committed DATABASE_URL=… FOLDER=… bun test/support/merge-and-die.ts
 * Without DIE_AT, prints by how many bytes of memory it grew at most.
 */
const { DIE_AT: step, DATABASE_URL: url = "", FOLDER: folder = "" } = process.env;
const memoryBytes = Number(process.env["MEMORY_BYTES"] ?? 64 * 2 ** 20);

class DyingObjects extends WrappedObjects {
  override async upload(key: string, chunks: AsyncIterable<Uint8Array>, signal?: AbortSignal) {
    const dying = async function* () {
      for await (const chunk of chunks) {
        yield chunk;
        await dieAt("writing");
      }
    };
    await super.upload(key, step === "writing" ? dying() : chunks, signal);
    await dieAt("written");
  }
}

const log = pino({ level: "silent" });
const sql = openDatabase(url, { connections: 2 });
const objects = new DyingObjects(await FileObjects.open(folder));
const garbage = new ObjectGarbage({ sql, objects, log });
const dyingSql: Sql = new Proxy(sql, {
  get: (target, name) => (name === "begin" ? beginAndDie : Reflect.get(target, name, target)),
});
const beganAt = process.memoryUsage.rss();
let most = beganAt;
setInterval(() => (most = Math.max(most, process.memoryUsage.rss())), 20).unref();
const merger = new Merger(
  {
    sql: dyingSql,
    objects,
    garbage: {
      begin: async (keys) => {
        const held = await garbage.begin(keys);
        await dieAt("listed");
        return held;
      },
      discard: async (keys) => await garbage.discard(keys),
    },
    clock: SYSTEM_CLOCK,
    metrics: new WorkMetrics(),
    log,
  },
  { everyS: 0, graceS: 600, memoryBytes },
);
await merger.look();
process.stdout.write(String(most - beganAt));
process.exit(0);

async function beginAndDie(work: Parameters<Sql["begin"]>[1]): Promise<unknown> {
  const done = await sql.begin("", async (transaction) => {
    const result = await work(transaction);
    await dieAt("before-commit");
    return result;
  });
  await dieAt("committed");
  return done;
}

async function dieAt(name: string): Promise<void> {
  if (step !== name) return;
  process.kill(process.pid, "SIGKILL");
  // Waits, because nothing may happen until the signal arrives.
  for (;;) await Bun.sleep(1000);
}
