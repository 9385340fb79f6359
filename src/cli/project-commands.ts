import { type Command, InvalidArgumentError, Option } from "commander";

import { print, withProjects } from "./commands.ts";
import { wholeNumber } from "./whole-number.ts";
import { type Config } from "../platform/config/config.ts";
import { UsageError } from "../platform/errors.ts";
import {
  type CanvasQuality,
  type NewProject,
  type Project,
  type ProjectChange,
  describeProject,
} from "../projects/service.ts";

// One less than the column can hold, so that there is always a next id.
const ID_MAX = 2 ** 31 - 2;
const BEACON_BYTES_MIN = 1024;
const BEACON_BYTES_MAX = 64 * 2 ** 20;
const NAME_LENGTH_MAX = 255;
const CANVAS_FPS_MAX = 60;
const SESSION_MS_MIN = 1000;
const SESSION_MS_MAX = 7 * 86_400_000;
/** Word for a setting as configured; null would do, but commander would turn it into text. */
const DEFAULT = "default";
const KEY = /^[\w-]{1,64}$/;

type Json = { json?: boolean };
type OrDefault<T> = T | typeof DEFAULT;
type Settings = Pick<ProjectChange, "active" | "sampleRate"> & {
  beaconSize?: number;
  dailyBytes?: OrDefault<number>;
  recordCanvas?: OrDefault<boolean>;
  canvasQuality?: OrDefault<CanvasQuality>;
  canvasFps?: OrDefault<number>;
  sessionMs?: OrDefault<number>;
};

/** Adds `project create|update|list`, which work whether the server is running or not. */
export function addProjectCommands(root: Command, config: () => Config): void {
  root
    .command("create")
    .argument("<name>", `up to ${NAME_LENGTH_MAX} characters`, projectName)
    .addOption(
      new Option("--platform <platform>").choices(["ios", "android", "web"]).default("ios"),
    )
    .option("--id <id>", "use this internal id", wholeNumber(1, ID_MAX))
    .option("--key <key>", "use this project key", key)
    .option("--json", "print one JSON object")
    .action(async (name: string, { json, ...options }: Json & Omit<NewProject, "name">) => {
      const create = { name, ...options };
      show(await withProjects(config(), async (projects) => await projects.create(create)), json);
    });
  root
    .command("update")
    .argument("<id>", "the internal id", wholeNumber(1, ID_MAX))
    .option("--sample-rate <percent>", "percent of users to record", wholeNumber(0, 100))
    .option("--active <boolean>", "true or false", boolean)
    .option(
      "--beacon-size <bytes>",
      "largest batch, instead of BEACON_SIZE_LIMIT",
      wholeNumber(BEACON_BYTES_MIN, BEACON_BYTES_MAX),
    )
    .option(
      "--daily-bytes <bytes>",
      "bytes that it may store per UTC day, or `default` for QUOTA_BYTES_PER_DAY",
      orDefault(wholeNumber(1, Number.MAX_SAFE_INTEGER)),
    )
    .option(
      "--record-canvas <boolean>",
      "true, false, or `default` for RECORD_CANVAS",
      orDefault(boolean),
    )
    .addOption(
      new Option(
        "--canvas-quality <quality>",
        "quality of canvas images, or `default` for CANVAS_QUALITY",
      ).choices(["low", "medium", "high", DEFAULT]),
    )
    .option(
      "--canvas-fps <number>",
      "canvas images per second, or `default` for CANVAS_FPS",
      orDefault(wholeNumber(1, CANVAS_FPS_MAX)),
    )
    .option(
      "--session-ms <ms>",
      "how long the token of a session is valid, or `default` for two hours",
      orDefault(wholeNumber(SESSION_MS_MIN, SESSION_MS_MAX)),
    )
    .option("--json", "print one JSON object")
    .action(async (id: number, { json, ...settings }: Json & Settings) => {
      const change = changeOf(settings);
      if (Object.keys(change).length === 0)
        throw new UsageError("nothing to change: give an option, see `project update --help`");
      const update = async () =>
        await withProjects(config(), async (projects) => await projects.update(id, change));
      show(await update(), json);
    });
  root
    .command("list")
    .option("--json", "print one JSON object")
    .action(async ({ json }: Json) => {
      const projects = await withProjects(config(), async (all) => await all.list());
      list(projects.map(describeProject), json);
    });
}

type Shown = ReturnType<typeof describeProject>;

function show(project: Project, json: boolean | undefined): void {
  const shown = describeProject(project);
  const lines = Object.entries(shown).map(([name, value]) => `${name}: ${value ?? DEFAULT}`);
  print(json === true ? JSON.stringify(shown) : lines.join("\n"));
}

function list(projects: Shown[], json: boolean | undefined): void {
  if (json === true) print(JSON.stringify({ projects }));
  else for (const project of projects) print(lineOf(project));
}

function lineOf({ id, platform, projectID, projectKey, name, ...settings }: Shown): string {
  return [
    id,
    platform,
    projectID,
    projectKey,
    name,
    settings.active ? "active" : "inactive",
    `${settings.sampleRate} %`,
    settings.beaconSize ?? DEFAULT,
    settings.dailyBytes ?? DEFAULT,
    settings.recordCanvas ?? DEFAULT,
    settings.canvasQuality ?? DEFAULT,
    settings.canvasFps ?? DEFAULT,
    settings.sessionMs ?? DEFAULT,
  ].join("\t");
}

/** Validates a name, which lists show on one line. */
function projectName(text: string): string {
  const isShown = text.trim() !== "" && !/\p{Cc}/u.test(text) && text.isWellFormed();
  if (!isShown || text.length > NAME_LENGTH_MAX)
    throw new InvalidArgumentError(
      `not a name of 1 to ${NAME_LENGTH_MAX} characters, none of them a control character`,
    );
  return text;
}

function changeOf(settings: Settings): ProjectChange {
  const { beaconSize, dailyBytes, recordCanvas, canvasQuality, canvasFps, sessionMs, ...others } =
    settings;
  return {
    ...others,
    ...(beaconSize !== undefined && { beaconBytesMax: beaconSize }),
    ...(dailyBytes !== undefined && { dailyBytesMax: orNull(dailyBytes) }),
    ...(recordCanvas !== undefined && { recordCanvas: orNull(recordCanvas) }),
    ...(canvasQuality !== undefined && { canvasQuality: orNull(canvasQuality) }),
    ...(canvasFps !== undefined && { canvasFps: orNull(canvasFps) }),
    ...(sessionMs !== undefined && { sessionMs: orNull(sessionMs) }),
  };
}

function orNull<T>(value: OrDefault<T>): T | null {
  return value === DEFAULT ? null : value;
}

function orDefault<T>(parse: (text: string) => T): (text: string) => OrDefault<T> {
  return (text) => (text === DEFAULT ? DEFAULT : parse(text));
}

function boolean(text: string): boolean {
  if (text !== "true" && text !== "false") throw new InvalidArgumentError("neither true nor false");
  return text === "true";
}

function key(text: string): string {
  if (!KEY.test(text)) throw new InvalidArgumentError("not a key of letters, digits, - and _");
  return text;
}
