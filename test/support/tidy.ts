import { dirname, join, normalize } from "node:path";

/** Source files by path from the root of the repository, such as `src/app.ts`. */
export type Sources = Map<string, string>;

export type Import = { from: string; to: string; isType: boolean };

/** Rooms from the bottom up. A room imports those below it and its own files. */
const ROOMS = [
  "src/platform",
  "src/platform/config",
  "src/platform/database",
  "src/platform/bus",
  "src/platform/telemetry",
  "src/platform/objects",
  "src/platform/bodies",
  "src/platform/http",
  "src/wire",
  "src/log",
  "src/log/recovery",
  "src/archives",
  "src/archives/merge",
  "src/archives/recovery",
  "src/log/verify",
  "slices",
  "src",
  "src/processes",
  "src/cli",
  "src/main.ts",
];

const SLICES = [
  "api-keys",
  "campaigns",
  "devices",
  "images",
  "ingest",
  "presence",
  "projects",
  "push",
  "replay",
  "sessions",
  "updates",
].map((name) => `src/${name}`);

/**
 * Writers of each table. The storage engine writes what its records hold: sessions, images and
 * projects are recorded in segments and indexed with them. `ingest` adds what batches say about
 * their sessions.
 */
const WRITERS: Record<string, string[]> = {
  archives: ["src/archives", "src/log/verify"],
  batches: ["src/archives", "src/log"],
  build_garbage: ["src/updates"],
  build_names: [],
  builds: ["src/updates"],
  device_events: ["src/campaigns"],
  device_numbers: ["src/devices"],
  devices: ["src/devices"],
  image_contents: ["src/archives", "src/images", "src/log"],
  image_uses: ["src/images", "src/log"],
  images: ["src/images", "src/log"],
  migrations: ["src/platform/database"],
  notifications: ["src/campaigns"],
  object_garbage: ["src/archives"],
  presence_devices: ["src/presence"],
  project_usage: ["src/projects"],
  projects: ["src/log"],
  segments: ["src/archives", "src/ingest", "src/log"],
  session_pieces: ["src/archives", "src/log/verify"],
  session_worker_leases: ["src/sessions"],
  sessions: ["src/ingest", "src/log"],
  signatures: ["src/api-keys"],
  unreadable_segments: ["src/log"],
  users: ["src/updates"],
};

/** Folders of tests that mirror no folder of src. */
const OTHER_TESTS = [
  "test",
  "test/bench",
  "test/deploy",
  "test/docs",
  "test/durability",
  "test/support",
];

const FILE_LINES_MAX = 300;
const FOLDER_FILES_MAX = 20;
const BANNED_FILES = /\b(?:utils?|helpers?|misc|common|tools)\b/;
const BANNED_NAMES = /\b(?:deaf|homeless|sendAway|Moments|Looked)\b/;
/** Comments that begin like a fragment: "What …", "Of …", "Whether …" without a verb before. */
const FRAGMENT = /^\s*(?:\/\/|\/\*\*|\*) (?:What|Of|Whether|Who|Where|How|By|In|From|As)\b/;

/** Reads source files by their path from the root of the repository. */
export async function readSources(pattern: string): Promise<Sources> {
  const paths = [...new Bun.Glob(pattern).scanSync()].toSorted();
  return new Map(
    await Promise.all(paths.map(async (path) => [path, await Bun.file(path).text()] as const)),
  );
}

/** Lists imports that run up, or from one slice to the values of another. */
export function importProblems(sources: Sources): string[] {
  return [...sources.keys()].flatMap((path) =>
    importsOf(path, sources.get(path) ?? "").flatMap(({ from, to, isType }) => {
      const [own, other] = [roomOf(from), roomOf(to)];
      if (own === undefined || other === undefined) return [`${from} is in no known room`];
      if (ROOMS.indexOf(other) > ROOMS.indexOf(own)) return [`${from} imports ${to}, a room above`];
      const [slice, otherSlice] = [sliceOf(from), sliceOf(to)];
      if (isType || own !== "slices" || slice === otherSlice) return [];
      return otherSlice === undefined ? [] : [`${from} imports values of ${to}, another slice`];
    }),
  );
}

/** Lists statements that write a table outside of the rooms that own it. */
export function tableProblems(sources: Sources): string[] {
  return [...sources].flatMap(([path, text]) =>
    [...text.matchAll(/\b(?:insert into|update|delete from) ([a-z_]+)\b/g)].flatMap(([, name]) => {
      const writers = WRITERS[name ?? ""];
      const isWriter = writers?.some((room) => path.startsWith(`${room}/`)) ?? true;
      return isWriter ? [] : [`${path} writes ${name}`];
    }),
  );
}

/** Lists tables of the schema whose writers are not written down here. */
export function unknownTables(schema: string): string[] {
  const names = [...schema.matchAll(/create table (?:if not exists )?([a-z_]+)/g)];
  return names.flatMap(([, name = ""]) => (name in WRITERS ? [] : [name]));
}

/** Lists files with too many lines. */
export function lengthProblems(sources: Sources): string[] {
  return [...sources].flatMap(([path, text]) =>
    text.split("\n").length - 1 > FILE_LINES_MAX
      ? [`${path} has over ${FILE_LINES_MAX} lines`]
      : [],
  );
}

/** Lists folders with too many files. */
export function folderProblems(sources: Sources): string[] {
  const folders = Map.groupBy(sources.keys(), (path) => dirname(path));
  return [...folders].flatMap(([folder, files]) =>
    files.length > FOLDER_FILES_MAX ? [`${folder} has over ${FOLDER_FILES_MAX} files`] : [],
  );
}

/** Lists folders of tests that have no counterpart in src. */
export function testFolderProblems(sources: Sources): string[] {
  const folders = new Set([...sources.keys()].map((path) => dirname(path)));
  return [...folders]
    .filter((folder) => folder.startsWith("test") && !OTHER_TESTS.includes(folder))
    .filter((folder) => !folders.has(folder.replace("test", "src")))
    .map((folder) => `${folder} mirrors no folder of src`);
}

/** Lists names that say nothing, or nothing that a newcomer would search for. */
export function nameProblems(sources: Sources): string[] {
  return [...sources].flatMap(([path, text]) =>
    [...(path.match(BANNED_FILES) ?? []), ...text.matchAll(new RegExp(BANNED_NAMES, "g"))].map(
      (name) => `${path}: ${String(name)}`,
    ),
  );
}

/** Lists comments that begin like a fragment of a sentence. */
export function commentProblems(sources: Sources): string[] {
  return [...sources].flatMap(([path, text]) =>
    text
      .split("\n")
      .filter((line) => FRAGMENT.test(line))
      .map((line) => `${path}: ${line.trim()}`),
  );
}

export function importsOf(path: string, text: string): Import[] {
  const statements = text.matchAll(
    /(?:import|export)\s+(type\s+)?(?:([^;"]*?)from\s+)?"(\.[^"]+)"|import\("(\.[^"]+)"\)/g,
  );
  return [...statements].map(([, type, names = "", target, dynamic]) => ({
    from: path,
    to: normalize(join(dirname(path), target ?? dynamic ?? "")),
    isType: type !== undefined || (names !== "" && isAllTypes(names)),
  }));
}

function isAllTypes(names: string): boolean {
  const listed = names.replaceAll(/[{}\s]+/g, " ").split(",");
  return listed.every((name) => name.trim() === "" || name.trim().startsWith("type "));
}

function roomOf(path: string): string | undefined {
  if (path === "package.json") return "src/platform";
  if (path === "src/main.ts") return path;
  if (sliceOf(path) !== undefined) return "slices";
  const folder = dirname(path);
  return ROOMS.includes(folder) ? folder : undefined;
}

function sliceOf(path: string): string | undefined {
  return SLICES.find((slice) => path.startsWith(`${slice}/`));
}
