#!/usr/bin/env bun
import { Command, CommanderError, Option } from "commander";

import { version } from "../package.json" with { type: "json" };
import { type ServeOptions, runMigrations, sendCampaigns, serve, start } from "./cli/commands.ts";
import { addDeviceCommands } from "./cli/device-commands.ts";
import { addExportReplayCommand } from "./cli/export-replay-command.ts";
import { type Config, readConfig } from "./platform/config/config.ts";
import { openLog } from "./platform/logger.ts";
import { DependencyAway, EXIT_AWAY, UsageError } from "./platform/errors.ts";
import { addKeyCommands } from "./cli/key-commands.ts";
import { STDERR, STDOUT } from "./platform/text-output.ts";
import { addProjectCommands } from "./cli/project-commands.ts";
import { addReindexCommand } from "./cli/reindex-command.ts";
import { addVerifyCommand } from "./cli/verify-command.ts";
import { addApiKeyCommands } from "./cli/api-key-commands.ts";

const SERVICE_OUTPUT_MS = 1000;

/**
 * Builds the command line. The environment is read only when a command runs, so that `--help` works
 * even if it has problems.
 */
function program(config: () => Config): Command {
  const root = new Command("floodgate")
    .version(version)
    .description("The device backend for mobile and web SDKs.")
    .exitOverride();
  root
    .command("start")
    .description("start everything: database, schema, a demo project and all processes")
    .action(async () => start(config()));
  root
    .command("serve")
    .description("run one serving process on a migrated database")
    .option("--reuse-port", "share the port with other serving processes")
    .addOption(new Option("--kept", "run under the supervisor of `start`").hideHelp())
    .action(async (options: ServeOptions) => serve(config(), options));
  root
    .command("work")
    .description("run one process that sends campaigns and cleans up")
    .action(async () => sendCampaigns(config()));
  root
    .command("migrate")
    .description("bring the database's schema up to date")
    .action(async () => runMigrations(config()));
  addReindexCommand(
    root
      .command("reindex")
      .description("rebuild the database's projects, sessions, batches and images from the store"),
    config,
  );
  addVerifyCommand(
    root
      .command("verify")
      .description("check that the object of each row is there and whole, and take out lost rows"),
    config,
  );
  addExportReplayCommand(
    root
      .command("export-replay")
      .description("write the files from which OpenReplay's player shows a session"),
    config,
  );
  addProjectCommands(
    root.command("project").description("create, change and list projects"),
    config,
  );
  addDeviceCommands(root.command("devices").description("import devices for pushes"), config);
  addKeyCommands(root.command("key").description("show the server key of `start`"), config);
  addApiKeyCommands(
    root.command("signature").description("create, list and revoke keys of the update server"),
    config,
  );
  return root;
}

function loadConfig(): Config {
  const config = readConfig();
  const log = openLog(config.logLevel);
  for (const warning of config.warnings) log.warn(warning);
  return config;
}

/**
 * Resolves when readers have taken all output: exiting would drop what a slow reader of a pipe has
 * not read yet. The output of services is waited for at most SERVICE_OUTPUT_MS.
 */
async function taken(): Promise<void> {
  await Promise.all([STDOUT.close(SERVICE_OUTPUT_MS), STDERR.close(SERVICE_OUTPUT_MS)]);
  await new Promise<void>((written) => {
    process.stdout.once("error", () => written());
    process.stdout.end(() => written());
  });
}

/** Describes the error in one line; with `LOG_LEVEL=debug` by its stack. */
function describeError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (process.env["LOG_LEVEL"] === "debug") return error.stack ?? error.message;
  const code = "code" in error ? String(error.code) : error.name;
  return error.message === "" ? code : error.message.trim().replaceAll(/\s*\n\s*/g, " | ");
}

// Removes PG* variables, which are meant for other PostgreSQL programs: the driver and the embedded
// server would follow them.
for (const name of Object.keys(process.env)) if (name.startsWith("PG")) delete process.env[name];

// A reader that closes the pipe (EPIPE) must not end a process that serves clients.
process.stdout.on("error", () => undefined);

try {
  await program(loadConfig).parseAsync();
  await taken();
  process.exit(0);
} catch (error) {
  await Promise.all([STDOUT.close(SERVICE_OUTPUT_MS), STDERR.close(SERVICE_OUTPUT_MS)]);
  if (error instanceof CommanderError) process.exit(error.exitCode === 0 ? 0 : 2);
  process.stderr.write(`floodgate: ${describeError(error)}\n`);
  if (error instanceof DependencyAway) process.exit(EXIT_AWAY);
  process.exit(error instanceof UsageError ? 2 : 1);
}
