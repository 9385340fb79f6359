import { availableParallelism } from "node:os";
import { join, resolve } from "node:path";

import { Command, CommanderError, InvalidArgumentError } from "commander";

/** Wrong command line: reported in one line on stderr, with exit code 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

type Flags = {
  phases?: string;
  scenario?: string;
  quick: boolean;
  json: boolean;
  pin: boolean;
  connections: number | undefined;
  bytes: number | undefined;
  rate: number | undefined;
  requests: number | undefined;
  rounds: number | undefined;
  seconds: number | undefined;
  /** Minutes of the soak phase. */
  soak: number | undefined;
  putsPerSecond: number | undefined;
  url: string | undefined;
  token: string | undefined;
  projectKey: string | undefined;
  s3: string | undefined;
  bucket: string;
  databaseUrl: string | undefined;
  redis: string | undefined;
  server: string;
  dataDir: string;
  out: string;
};

export type Options = Omit<Flags, "phases" | "scenario"> & {
  scenario: string;
  phases: string[];
  /** Result files or git refs to compare. */
  compared: string[];
};

export const REMOTE = "remote";
const COMPARE = "compare";
/** Phases that only run when they are asked for. */
const ON_REQUEST = ["soak"];
/** Phases that compare git refs unless others are asked for. */
const COMPARED_PHASES: Record<string, string[]> = { ingest: ["saturation"] };
const REPOSITORY = join(import.meta.dir, "..");

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
  const [name = "", ...compared] = command.args;
  const { phases: list, scenario: under, ...flags } = command.opts<Flags>();
  checkRemote(name, flags);
  checkCompared(name, compared, under, flags.databaseUrl);
  const scenario =
    flags.url === undefined ? (name === COMPARE ? (under ?? "ingest") : name) : REMOTE;
  const known = phases[scenario];
  if (known === undefined)
    throw new UsageError(
      `${name === "" ? "no scenario" : `unknown scenario "${scenario}"`}: choose one of ${[...Object.keys(phases), COMPARE].join(", ")}`,
    );
  const chosen =
    list?.split(",").map((phase) => phase.trim()) ??
    (flags.soak === undefined ? undefined : ["soak"]) ??
    (name === COMPARE ? COMPARED_PHASES[scenario] : undefined) ??
    known.filter((phase) => !ON_REQUEST.includes(phase));
  for (const phase of chosen)
    if (!known.includes(phase))
      throw new UsageError(`unknown phase "${phase}": ${scenario} has ${known.join(", ")}`);
  if (flags.pin && (Bun.which("taskset") === null || availableParallelism() < 2))
    throw new UsageError("--pin needs taskset (util-linux) and two cores");
  return { ...flags, scenario, phases: known.filter((phase) => chosen.includes(phase)), compared };
}

/** Returns whether result files are compared, which measures nothing. */
export function comparesFiles({ compared }: Pick<Options, "compared">): boolean {
  return compared.some(isFile);
}

function isFile(compared: string): boolean {
  return compared.endsWith(".json");
}

function checkRemote(name: string, { url, token, projectKey }: Omit<Flags, "phases">): void {
  const credentials = [token, projectKey].filter((each) => each !== undefined).length;
  if (url === undefined) {
    if (name === REMOTE) throw new UsageError(`${REMOTE} needs --url`);
    if (credentials > 0) throw new UsageError("--token and --project-key belong to --url");
  } else if (name !== "" && name !== REMOTE)
    throw new UsageError("--url loads a server that runs elsewhere, without a scenario");
  else if (credentials !== 1) throw new UsageError("--url needs either --token or --project-key");
}

function checkCompared(
  name: string,
  compared: string[],
  under: string | undefined,
  databaseUrl: string | undefined,
): void {
  if (name !== COMPARE) {
    if (compared.length > 0) throw new UsageError(`too many arguments: ${compared.join(" ")}`);
    if (under !== undefined) throw new UsageError(`--scenario belongs to ${COMPARE}`);
    return;
  }
  const files = compared.filter(isFile).length;
  if (compared.length < 2 || (files > 0 && (files !== compared.length || files > 2)))
    throw new UsageError(`${COMPARE} needs two result files (.json), or two or more git refs`);
  if (databaseUrl !== undefined)
    throw new UsageError(`${COMPARE} gives each ref a database of its own, without --database-url`);
}

function buildCommand(phases: Record<string, string[]>): Command {
  const list = Object.entries(phases).map(([name, each]) => `  ${name}: ${each.join(", ")}`);
  return new Command("bun bench")
    .description(
      "Measures Floodgate against a bare Bun server and against simpler implementations.",
    )
    .argument("[scenario]", [...Object.keys(phases), COMPARE].join(", "))
    .argument("[compared...]", `two results of runs (.json), or git refs, for ${COMPARE}`)
    .option("--phases <list>", "only these phases, separated by commas")
    .option("--quick", "smoke test; its figures mean little, no target is judged", false)
    .option("--json", "print the whole result as JSON instead of tables", false)
    .option("--connections <n>", "connections of the load generator", whole(1, 20_000))
    .option("--bytes <n>", "size of a batch", whole(256, 1_000_000))
    .option("--rounds <n>", "rounds of the alternating measurements", whole(1, 100))
    .option("--seconds <n>", "measuring window at saturation", whole(1, 3600))
    .option("--soak <minutes>", "run the soak phase for so long", whole(1, 10_080))
    .option("--scenario <name>", `scenario for ${COMPARE} with git refs (default: ingest)`)
    .option("--url <url>", "load a server that runs elsewhere", urlOf("http", "https"))
    .option("--token <token>", "session token for --url, on every connection")
    .option("--project-key <key>", "project for --url, with a session for each connection")
    .option("--rate <n>", "batches per second for --url (default: all it takes)", whole(1, 100_000))
    .option("--requests <n>", "most batches for --url (default: 1000000)", whole(1, 1_000_000_000))
    .option(
      "--puts-per-second <n>",
      "limit the simulator at saturation (default: none)",
      whole(1, 1_000_000),
    )
    .option(
      "--s3 <url>",
      "use a real S3 server instead of the simulator (AWS_* from the environment)",
      urlOf("http", "https"),
    )
    .option("--bucket <name>", "its bucket, created if missing", "floodgate-bench")
    .option("--database-url <url>", "use an existing PostgreSQL instead of an embedded one")
    .option(
      "--redis <url>",
      "carry presence over this Redis instead of PostgreSQL",
      urlOf("redis", "rediss"),
    )
    .option("--server <path>", "entry file of the server under test", toPath, inside("src/main.ts"))
    .option("--pin", "run the server on core 0 and everything else on core 1", false)
    .option("--data-dir <path>", "folder of databases and file stores", toPath, inside(".data"))
    .option("--out <path>", "folder of results", toPath, inside("bench/results"))
    .addHelpText("after", `\nPhases:\n${list.join("\n")}`)
    .allowExcessArguments(false)
    .configureOutput({ outputError: () => {} })
    .exitOverride();
}

function toPath(text: string): string {
  return resolve(text);
}

function inside(path: string): string {
  return join(REPOSITORY, path);
}

function whole(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!Number.isInteger(value) || value < least || value > most)
      throw new InvalidArgumentError(`It must be a whole number from ${least} to ${most}.`);
    return value;
  };
}

function urlOf(...schemes: string[]): (text: string) => string {
  return (text) => {
    if (!URL.canParse(text) || !schemes.includes(new URL(text).protocol.slice(0, -1)))
      throw new InvalidArgumentError(`It must be a URL of ${schemes.join(" or ")}.`);
    return text;
  };
}
