import { Presets, SingleBar } from "cli-progress";
import { type Command } from "commander";

import { print, withDatabase } from "./commands.ts";
import { type ArchivesReindexed } from "../archives/recovery/archive-reindex.ts";
import { type StoreReindexed, reindexStore } from "../archives/recovery/reindex-store.ts";
import { ReadFacts } from "../ingest/read-facts.ts";
import { type Reindexed } from "../log/recovery/reindex.ts";
import { type Config } from "../platform/config/config.ts";
import { openLog } from "../platform/logger.ts";
import { type ObjectStore } from "../platform/objects/objects.ts";
import { openObjects } from "../platform/objects/open-objects.ts";

const PROBLEMS_SHOWN = 1000;

/** Adds `reindex`, which works whether the server is running or not. */
export function addReindexCommand(command: Command, config: () => Config): void {
  command.option("--json", "print one JSON object").action(async ({ json }: { json?: boolean }) => {
    const done = await reindex(config());
    const { problems: ofSegments, contested: first, ...segments } = done.segments;
    const { problems: ofArchives, contested: second, ...archives } = done.archives;
    const problems = [...ofSegments, ...ofArchives];
    const contested = [...new Set([...first, ...second])];
    for (const { key, reason } of problems.slice(0, PROBLEMS_SHOWN))
      process.stderr.write(`${key}: ${reason}\n`);
    if (problems.length > PROBLEMS_SHOWN)
      process.stderr.write(
        `and ${problems.length - PROBLEMS_SHOWN} more, which --json prints as well\n`,
      );
    for (const id of contested)
      process.stderr.write(
        `project ${id} was created again while the database was lost: the older one is kept\n`,
      );
    if (json === true) {
      const keys = problems.map(({ key }) => key);
      print(JSON.stringify({ ...segments, archives, contested, keys, problems }));
    } else {
      print(`${segments.segments} segments with ${numbers(segments)}`);
      print(`${archives.archives} archives with ${numbers(archives)}`);
    }
    const [damaged, missing] = [
      segments.damaged + archives.damaged,
      segments.missing + archives.missing,
    ];
    if (damaged + missing > 0)
      throw new Error(
        `${damaged} objects are no segments or archives, or damaged; ${missing} are missing`,
      );
  });
}

function numbers(
  counts: Pick<Reindexed & ArchivesReindexed, "records" | "known" | "damaged" | "missing">,
): string {
  const { records, known, damaged, missing } = counts;
  return `${records} records indexed, ${known} were known, ${damaged} are damaged, ${missing} are missing`;
}

async function reindex(config: Config): Promise<StoreReindexed> {
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
    const { graceS } = shared.archives;
    const deps = { sql, objects, log, notes: () => new ReadFacts(sql), graceS };
    const isShown = process.stderr.isTTY;
    const show = (checked: number, records: number) => {
      if (isShown) bar.update(checked, { records });
    };
    if (isShown) {
      bar.start(0, 0, { records: 0 });
      // Counts the objects concurrently: the bar's total grows meanwhile.
      countObjects(objects, (total) => bar.setTotal(total)).catch(() => undefined);
    }
    try {
      return await reindexStore(deps, show);
    } finally {
      bar.stop();
    }
  });
}

async function countObjects(objects: ObjectStore, tell: (count: number) => void): Promise<void> {
  let count = 0;
  for (const prefix of ["segments/", "archives/"])
    for await (const object of objects.list(prefix)) if (object.bytes >= 0) tell(++count);
}
