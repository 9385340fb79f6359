import { Presets, SingleBar } from "cli-progress";
import { type Command, InvalidArgumentError } from "commander";

import { print, withDatabase } from "./commands.ts";
import { type ExportTarget, openTarget } from "./export-target.ts";
import { type Config } from "../platform/config/config.ts";
import { AppError, UsageError } from "../platform/errors.ts";
import { openObjects } from "../platform/objects/open-objects.ts";
import { Lost } from "../platform/objects/read-faults.ts";
import { gathered } from "../platform/streams.ts";
import { parseDecimal } from "../platform/whole-numbers.ts";
import { encoded } from "../replay/coding.ts";
import { type ReplayFile } from "../replay/replay-file.ts";
import { buildReplays } from "../replays.ts";
import { getSession } from "../sessions/list.ts";

type Options = { session: bigint; out: string; skipMissing?: boolean; json?: boolean };
/** File that was written, with its length before it was compressed. */
type Exported = { key: string; bytes: number };

/** Adds `export-replay`, which works whether the server is running or not. */
export function addExportReplayCommand(command: Command, config: () => Config): void {
  command
    .requiredOption("--session <id>", "the id of the session", sessionId)
    .requiredOption("--out <place>", "a folder, or s3://bucket/prefix")
    .option("--skip-missing", "leave out what is missing from the store or damaged")
    .option("--json", "print one JSON object")
    .action(async ({ json, ...options }: Options) => {
      const files = await exportReplay(config(), options);
      if (json === true) print(JSON.stringify({ files }));
      else if (files.length === 0) print(`session ${options.session} has nothing to replay`);
      else for (const { key, bytes } of files) print(`${key}\t${bytes} bytes`);
    });
}

async function exportReplay(
  config: Config,
  { session, out, skipMissing = false }: Options,
): Promise<Exported[]> {
  return await withDatabase(config, async (sql, shared) => {
    await getSession(sql, session).catch((error: unknown) => {
      if (!(error instanceof AppError)) throw error;
      throw new UsageError(`there is no session ${session}`, { cause: error });
    });
    await using target = await openTarget(out, shared.s3);
    await using objects = await openObjects(shared);
    const files = await buildReplays({ sql, objects }).list(session);
    return await exportAll(files, String(session), target, skipMissing);
  });
}

async function exportAll(
  files: ReplayFile[],
  session: string,
  target: ExportTarget,
  skipMissing: boolean,
): Promise<Exported[]> {
  const bar = new SingleBar(
    {
      format: "{bar} {value} of {total} files, {mebibytes} MiB",
      stream: process.stderr,
      hideCursor: true,
    },
    Presets.shades_classic,
  );
  const exported: Exported[] = [];
  let total = 0;
  const mebibytes = () => (total / 2 ** 20).toFixed(1);
  if (process.stderr.isTTY) bar.start(files.length, 0, { mebibytes: mebibytes() });
  try {
    for (const file of files) {
      const key = `${session}/${file.name}${file.name.endsWith(".frames") ? ".zst" : ""}`;
      const before = total;
      const counted = async function* counted() {
        for await (const chunk of gathered(file.read({ skipMissing }))) {
          total += chunk.length;
          bar.update({ mebibytes: mebibytes() });
          yield chunk;
        }
      };
      await target.write(key, encoded(counted(), "zstd")).catch((error: unknown) => {
        if (!(error instanceof Lost)) throw error;
        throw new Error(`${key}: ${error.message}; --skip-missing leaves it out`, { cause: error });
      });
      exported.push({ key, bytes: total - before });
      bar.increment({ mebibytes: mebibytes() });
    }
    return exported;
  } finally {
    bar.stop();
  }
}

function sessionId(text: string): bigint {
  const id = parseDecimal(text);
  if (id === undefined) throw new InvalidArgumentError("not the id of a session");
  return id;
}
