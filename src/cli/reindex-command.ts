import { Presets, SingleBar } from "cli-progress";
import { type Command } from "commander";

import { print, withDatabase } from "./commands.ts";
import { ReadFacts } from "../ingest/read-facts.ts";
import { Reindex, type Reindexed } from "../log/recovery/reindex.ts";
import { type Config } from "../platform/config/config.ts";
import { openLog } from "../platform/logger.ts";
import { type ObjectStore } from "../platform/objects/objects.ts";
import { openObjects } from "../platform/objects/open-objects.ts";

const PROBLEMS_SHOWN = 1000;

/** Adds `reindex`, which works whether the server is running or not. */
export function addReindexCommand(command: Command, config: () => Config): void {
  command.option("--json", "print one JSON object").action(async ({ json }: { json?: boolean }) => {
    const { problems, ...counts } = await reindexStore(config());
    for (const { key, reason } of problems.slice(0, PROBLEMS_SHOWN))
      process.stderr.write(`${key}: ${reason}\n`);
    if (problems.length > PROBLEMS_SHOWN)
      process.stderr.write(
        `and ${problems.length - PROBLEMS_SHOWN} more, which --json prints as well\n`,
      );
    const { segments, records, known, damaged, missing, contested } = counts;
    for (const id of contested)
      process.stderr.write(
        `project ${id} was created again while the database was lost: the older one is kept\n`,
      );
    print(
      json === true
        ? JSON.stringify({ ...counts, keys: problems.map(({ key }) => key), problems })
        : `${segments} segments with ${records} records indexed, ${known} were known, ${damaged} are damaged, ${missing} are missing`,
    );
    if (damaged + missing > 0)
      throw new Error(`${damaged} objects are no segments, or damaged; ${missing} are missing`);
  });
}

async function reindexStore(config: Config): Promise<Reindexed> {
  const bar = new SingleBar(
    {
      format: "{bar} {percentage}% {value} of {total} objects, {records} records",
      stream: process.stderr,
      hideCursor: true,
    },
    Presets.shades_classic,
  );
  return await withDatabase(config, async (sql, shared) => {
    await using objects = await openObjects(shared);
    const log = openLog(shared.logLevel);
    const reindex = new Reindex({ sql, objects, log, facts: new ReadFacts(sql) });
    if (!process.stderr.isTTY) return await reindex.run();
    bar.start(0, 0, { records: 0 });
    // Counts the objects concurrently: the bar's total grows meanwhile.
    countObjects(objects, (total) => bar.setTotal(total)).catch(() => undefined);
    try {
      return await reindex.run((checked, records) => bar.update(checked, { records }));
    } finally {
      bar.stop();
    }
  });
}

async function countObjects(objects: ObjectStore, tell: (count: number) => void): Promise<void> {
  let count = 0;
  for await (const object of objects.list("segments/")) if (object.bytes >= 0) tell(++count);
}
