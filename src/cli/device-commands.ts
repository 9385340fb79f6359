import { accessSync, constants, createReadStream, statSync } from "node:fs";
import { Presets, SingleBar } from "cli-progress";
import { type Command } from "commander";

import { print, withDatabase } from "./commands.ts";
import { linesOf } from "../devices/lines.ts";
import { type Config } from "../platform/config/config.ts";
import { UsageError } from "../platform/errors.ts";

const PROBLEMS_SHOWN = 20;

/** Adds `devices import`, which works whether the server is running or not. */
export function addDeviceCommands(root: Command, config: () => Config): void {
  root
    .command("import")
    .argument(
      "<file>",
      "JSON lines: external_id, push_token, send_platform, device_platform, properties",
    )
    .description("create or change one device for each line")
    .option("--json", "print one JSON object")
    .action(async (file: string, { json }: { json?: boolean }) => {
      const { problems, ...counts } = await importFile(config(), file);
      for (const { line, reason } of problems.slice(0, PROBLEMS_SHOWN))
        process.stderr.write(`line ${line}: ${reason}\n`);
      print(
        json === true
          ? JSON.stringify(counts)
          : `${counts.devices} devices, ${counts.bad} lines refused`,
      );
      if (counts.bad > 0) throw new Error(`${counts.bad} of ${counts.lines} lines were refused`);
    });
}

async function importFile(config: Config, file: string) {
  const bytes = sizeOf(file);
  const stream = createReadStream(file);
  const bar = new SingleBar(
    { format: "{bar} {percentage}% {devices} devices", stream: process.stderr, hideCursor: true },
    Presets.shades_classic,
  );
  const { importDevices } = await import("../devices/import.ts");
  if (process.stderr.isTTY) bar.start(bytes, 0, { devices: 0 });
  try {
    return await withDatabase(
      config,
      async (sql) =>
        await importDevices(sql, linesOf(stream), ({ devices }) =>
          bar.update(stream.bytesRead, { devices }),
        ),
    );
  } finally {
    bar.stop();
    stream.destroy();
  }
}

function sizeOf(file: string): number {
  try {
    accessSync(file, constants.R_OK);
    const stat = statSync(file);
    if (!stat.isDirectory()) return stat.size;
  } catch (cause) {
    throw new UsageError(`"${file}" cannot be read`, { cause });
  }
  throw new UsageError(`"${file}" is a folder`);
}
