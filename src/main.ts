#!/usr/bin/env bun
import { Command, CommanderError, InvalidArgumentError, Option } from "commander";

import { version } from "../package.json" with { type: "json" };
import { print, runMigrations, serve, start, withProjects } from "./commands.ts";
import { type Config, readConfig } from "./platform/config.ts";
import { UsageError } from "./platform/errors.ts";
import { type NewProject, type Project, type ProjectChange, describeProject } from "./projects/service.ts";

const ID_MAX = 2 ** 31 - 1;
const KEY = /^[\w-]{1,64}$/;

function integer(least: number, most: number) {
  return (text: string): number => {
    const value = Number(text);
    if (!Number.isInteger(value) || value < least || value > most) throw new InvalidArgumentError(`not a whole number from ${least} to ${most}`);
    return value;
  };
}

function boolean(text: string): boolean {
  if (text !== "true" && text !== "false") throw new InvalidArgumentError("neither true nor false");
  return text === "true";
}

function key(text: string): string {
  if (!KEY.test(text)) throw new InvalidArgumentError("not a key of letters, digits, - and _");
  return text;
}

/** The environment is read when a command runs, so that `--help` works whatever it holds. */
function program(config: () => Config): Command {
  const root = new Command("floodgate").version(version).description("The device backend for mobile and web SDKs.").exitOverride();
  root.command("start").description("serve from nothing: database, schema and a demo project included").action(async () => start(config()));
  root
    .command("serve")
    .description("one serving process on a migrated database")
    .option("--reuse-port", "share the port with other serving processes")
    .action(async (options: { reusePort?: boolean }) => serve(config(), options));
  root.command("migrate").description("bring the database's schema up to date").action(async () => runMigrations(config()));
  addProjectCommands(root.command("project").description("create, change and list projects"), config);
  return root;
}

function addProjectCommands(root: Command, config: () => Config): void {
  const show = (project: Project, json: boolean | undefined) => {
    const shown = describeProject(project);
    print(json === true ? JSON.stringify(shown) : Object.entries(shown).map(([name, value]) => `${name}: ${value}`).join("\n"));
  };
  root
    .command("create")
    .argument("<name>")
    .addOption(new Option("--platform <platform>").choices(["ios", "android", "web"]).default("ios"))
    .option("--id <id>", "keep an existing id", integer(1, ID_MAX))
    .option("--key <key>", "keep an existing project key", key)
    .option("--json", "print one JSON object")
    .action(async (name: string, { json, ...options }: Omit<NewProject, "name"> & { json?: boolean }) => {
      show(await withProjects(config(), async (projects) => await projects.create({ name, ...options })), json);
    });
  root
    .command("update")
    .argument("<id>", "", integer(1, ID_MAX))
    .option("--sample-rate <percent>", "percent of users whose sessions are recorded", integer(0, 100))
    .option("--active <boolean>", "true or false", boolean)
    .option("--beacon-size <bytes>", "largest batch, over BEACON_SIZE_LIMIT", integer(1024, 64 * 2 ** 20))
    .option("--json", "print one JSON object")
    .action(async (id: number, { json, beaconSize, ...options }: ProjectChange & { beaconSize?: number; json?: boolean }) => {
      const change = { ...options, ...(beaconSize !== undefined && { beaconBytesMax: beaconSize }) };
      show(await withProjects(config(), async (projects) => await projects.update(id, change)), json);
    });
  root
    .command("list")
    .option("--json", "print one JSON object")
    .action(async ({ json }: { json?: boolean }) => {
      const projects = (await withProjects(config(), async (all) => await all.list())).map(describeProject);
      if (json === true) print(JSON.stringify({ projects }));
      else for (const { id, platform, projectID, projectKey, name } of projects) print([id, platform, projectID, projectKey, name].join("\t"));
    });
}

try {
  await program(() => readConfig()).parseAsync();
  process.exit(0);
} catch (error) {
  if (error instanceof CommanderError) process.exit(error.exitCode === 0 ? 0 : 2);
  if (!(error instanceof UsageError)) throw error;
  process.stderr.write(`floodgate: ${error.message}\n`);
  process.exit(2);
}
