import { availableParallelism } from "node:os";
import { resolve } from "node:path";

import { Command, CommanderError, InvalidArgumentError } from "commander";

import { BENCH_DIR, REPOSITORY } from "./processes.ts";

/** Wrong command line: reported in one line on stderr, with exit code 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

export type Options = {
  scenario: string;
  phases: string[];
  quick: boolean;
  json: boolean;
  pin: boolean;
  connections: number | undefined;
  rounds: number | undefined;
  seconds: number | undefined;
  putsPerSecond: number | undefined;
  s3: string | undefined;
  bucket: string;
  databaseUrl: string | undefined;
  redis: string | undefined;
  server: string;
  dataDir: string;
  out: string;
};

type Flags = {
  phases?: string;
  quick?: boolean;
  json?: boolean;
  pin?: boolean;
  connections?: number;
  rounds?: number;
  seconds?: number;
  putsPerSecond?: number;
  s3?: string;
  bucket: string;
  databaseUrl?: string;
  redis?: string;
  server: string;
  dataDir: string;
  out: string;
};

/**
 * Parses the command line; returns undefined after printing help. `phases` are those by scenario.
 */
export function readOptions(args: string[], phases: Record<string, string[]>): Options | undefined {
  const command = buildCommand(phases);
  try {
    command.parse(args, { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return undefined;
    throw new UsageError(error.message.replace(/^error: /, ""));
  }
  const scenario = command.args[0] ?? "";
  const known = phases[scenario];
  if (known === undefined)
    throw new UsageError(
      `unknown scenario "${scenario}": choose one of ${Object.keys(phases).join(", ")}`,
    );
  const flags = command.opts<Flags>();
  const chosen = flags.phases?.split(",").map((phase) => phase.trim()) ?? known;
  for (const phase of chosen)
    if (!known.includes(phase))
      throw new UsageError(`unknown phase "${phase}": ${scenario} has ${known.join(", ")}`);
  if (flags.pin === true && (Bun.which("taskset") === null || availableParallelism() < 2))
    throw new UsageError("--pin needs taskset (util-linux) and two cores");
  return {
    scenario,
    phases: known.filter((phase) => chosen.includes(phase)),
    quick: flags.quick === true,
    json: flags.json === true,
    pin: flags.pin === true,
    connections: flags.connections,
    rounds: flags.rounds,
    seconds: flags.seconds,
    putsPerSecond: flags.putsPerSecond,
    s3: flags.s3,
    bucket: flags.bucket,
    databaseUrl: flags.databaseUrl,
    redis: flags.redis,
    server: resolve(flags.server),
    dataDir: resolve(flags.dataDir),
    out: resolve(flags.out),
  };
}

function buildCommand(phases: Record<string, string[]>): Command {
  const list = Object.entries(phases).map(([name, each]) => `  ${name}: ${each.join(", ")}`);
  return new Command("bun bench")
    .description(
      "Measures Floodgate against a bare Bun server and against simpler implementations.",
    )
    .argument("<scenario>", Object.keys(phases).join(", "))
    .option("--phases <list>", "only these phases, separated by commas")
    .option("--quick", "smoke test of half a minute; its figures mean little")
    .option("--json", "print the whole result as JSON instead of tables")
    .option("--connections <n>", "connections of the load generator", positiveInteger)
    .option("--rounds <n>", "rounds of the alternating measurements", positiveInteger)
    .option("--seconds <n>", "measuring window at saturation", positiveInteger)
    .option(
      "--puts-per-second <n>",
      "limit the simulator at saturation (default: none)",
      positiveInteger,
    )
    .option(
      "--s3 <url>",
      "use a real S3 server instead of the simulator (AWS_* from the environment)",
      s3Url,
    )
    .option("--bucket <name>", "its bucket, created if missing", "floodgate-bench")
    .option("--database-url <url>", "use an existing PostgreSQL instead of an embedded one")
    .option("--redis <url>", "carry presence over this Redis instead of PostgreSQL", redisUrl)
    .option(
      "--server <path>",
      "entry file of the server under test",
      resolve(REPOSITORY, "src/main.ts"),
    )
    .option("--pin", "run the server on core 0 and everything else on core 1")
    .option(
      "--data-dir <path>",
      "folder of databases and file stores",
      resolve(REPOSITORY, ".data"),
    )
    .option("--out <path>", "folder of results", resolve(BENCH_DIR, "results"))
    .addHelpText("after", `\nPhases:\n${list.join("\n")}`)
    .allowExcessArguments(false)
    .configureOutput({ outputError: () => {} })
    .exitOverride();
}

function positiveInteger(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1)
    throw new InvalidArgumentError("It must be a whole number from 1.");
  return value;
}

function redisUrl(text: string): string {
  if (!URL.canParse(text) || !/^rediss?:/.test(text))
    throw new InvalidArgumentError("It must be a redis or rediss URL.");
  return text;
}

function s3Url(text: string): string {
  if (!URL.canParse(text) || !/^https?:/.test(text))
    throw new InvalidArgumentError("It must be an http or https URL.");
  return text;
}
