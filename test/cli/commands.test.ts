import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { Type } from "typebox";
import { Value } from "typebox/value";

import { encodeProjectID } from "../../src/projects/codec.ts";
import { FOREIGN, runCommand } from "../support/command.ts";
import { freePort } from "../support/free-port.ts";
import { freshDatabase } from "../support/postgres.ts";
import { TcpProxy } from "../support/tcp-proxy.ts";

const TIMEOUT_MS = 60_000;

const Project = Type.Object({
  id: Type.Integer(),
  name: Type.String(),
  platform: Type.String(),
  projectID: Type.Integer(),
  projectKey: Type.String(),
  active: Type.Boolean(),
  sampleRate: Type.Integer(),
  beaconSize: Type.Union([Type.Integer(), Type.Null()]),
  dailyBytes: Type.Union([Type.Integer(), Type.Null()]),
  recordCanvas: Type.Union([Type.Boolean(), Type.Null()]),
  canvasQuality: Type.Union([Type.String(), Type.Null()]),
  canvasFps: Type.Union([Type.Integer(), Type.Null()]),
  sessionMs: Type.Union([Type.Integer(), Type.Null()]),
});
const DEFAULTS = "\tdefault".repeat(4);
const Projects = Type.Object({ projects: Type.Array(Project) });

let databaseUrl = "";
let dataDir = "";

beforeAll(async () => {
  databaseUrl = await freshDatabase();
  dataDir = mkdtempSync(join(tmpdir(), "floodgate-commands-"));
});
afterAll(() => rmSync(dataDir, { recursive: true, force: true }));

/** Runs the program with a configured database. */
async function run(args: string[], env: Record<string, string> = {}) {
  const own = {
    DATABASE_URL: databaseUrl,
    TOKEN_SECRET: "secret",
    DATA_DIR: dataDir,
    LOG_LEVEL: "error",
  };
  return await runCommand(args, { ...own, ...env });
}

test("a project is created with what it was given, and printed as one JSON object", async () => {
  const { out, code } = await run([
    "project",
    "create",
    "Shop app",
    "--platform",
    "android",
    "--json",
  ]);
  expect(code).toBe(0);
  const project = Value.Parse(Project, JSON.parse(out));
  expect(project).toMatchObject({ name: "Shop app", platform: "android" });
  expect(project.projectID).toBe(encodeProjectID(project.id));
  expect(project.projectKey).toMatch(/^[A-Za-z0-9]{20}$/);
});

test("a project keeps identifiers that it had before, and the next one gets a free id", async () => {
  const kept = await run([
    "project",
    "create",
    "old",
    "--id",
    "4711",
    "--key",
    "OldKey-1",
    "--json",
  ]);
  expect(Value.Parse(Project, JSON.parse(kept.out))).toMatchObject({
    id: 4711,
    projectKey: "OldKey-1",
  });
  const again = await run(["project", "create", "twin", "--id", "4711"]);
  expect(again).toMatchObject({
    code: 2,
    err: "floodgate: a project with that id or key exists\n",
  });
  const next = await run(["project", "create", "next", "--json"]);
  expect(Value.Parse(Project, JSON.parse(next.out)).id).toBe(4712);
});

test("a list shows every project, and an update only changes what it names", async () => {
  const created = Value.Parse(
    Project,
    JSON.parse((await run(["project", "create", "sampled", "--json"])).out),
  );
  const updated = await run([
    "project",
    "update",
    String(created.id),
    "--sample-rate",
    "0",
    "--json",
  ]);
  const changed = Value.Parse(Project, JSON.parse(updated.out));
  expect(changed).toEqual({ ...created, sampleRate: 0 });
  const { projects } = Value.Parse(
    Projects,
    JSON.parse((await run(["project", "list", "--json"])).out),
  );
  expect(projects).toContainEqual(changed);
  const { out } = await run(["project", "list"]);
  expect(out).toContain(
    `${created.projectKey}\tsampled\tactive\t0 %\tdefault\tdefault${DEFAULTS}\n`,
  );
});

test("what is set for a project is shown, and so is the default again", async () => {
  const created = await run(["project", "create", "set", "--json"]);
  const { id, projectKey } = Value.Parse(Project, JSON.parse(created.out));
  const settings = "--active false --beacon-size 4096 --daily-bytes 1000".split(" ");
  const { out } = await run(["project", "update", String(id), ...settings]);
  expect(out).toContain("active: false\nsampleRate: 100\nbeaconSize: 4096\ndailyBytes: 1000\n");
  expect((await run(["project", "list"])).out).toContain(
    `${projectKey}\tset\tinactive\t100 %\t4096\t1000${DEFAULTS}\n`,
  );
  const again = await run(["project", "update", String(id), "--daily-bytes", "default"]);
  expect(again.out).toContain("beaconSize: 4096\ndailyBytes: default\n");
});

test("what web pages of a project are told can be set, read and unset", async () => {
  const created = await run(["project", "create", "pages", "--platform", "web", "--json"]);
  const project = Value.Parse(Project, JSON.parse(created.out));
  expect(project).toMatchObject({ recordCanvas: null, sessionMs: null });
  const update = async (settings: string) => {
    const args = ["project", "update", String(project.id), ...settings.split(" "), "--json"];
    return Value.Parse(Project, JSON.parse((await run(args)).out));
  };
  const set = { recordCanvas: false, canvasQuality: "high", canvasFps: 4, sessionMs: 1000 };
  const words = "--record-canvas false --canvas-quality high --canvas-fps 4 --session-ms 1000";
  expect(await update(words)).toEqual({ ...project, ...set });
  expect((await run(["project", "list"])).out).toContain("\tfalse\thigh\t4\t1000\n");
  expect(await update("--canvas-fps default")).toEqual({ ...project, ...set, canvasFps: null });
  const unset = "--record-canvas default --canvas-quality default --session-ms default";
  expect(await update(unset)).toEqual(project);
});

test.each([
  [["project", "create", "x", "--platform", "windows"], "--platform"],
  [["project", "create", "x", "--id", "0"], "--id"],
  [["project", "update", "1", "--sample-rate", "101"], "--sample-rate"],
  [["project", "update", "1", "--active", "maybe"], "--active"],
  [["project", "update", "1", "--daily-bytes", "0"], "--daily-bytes"],
  [["project", "update", "1", "--daily-bytes", "none"], "--daily-bytes"],
  [["project", "update", "1", "--record-canvas", "yes"], "--record-canvas"],
  [["project", "update", "1", "--canvas-quality", "standard"], "--canvas-quality"],
  [["project", "update", "1", "--canvas-fps", "61"], "--canvas-fps"],
  [["project", "update", "1", "--session-ms", "999"], "--session-ms"],
  [["project", "update", "1", "--session-ms", "604800001"], "--session-ms"],
  [["project", "update", "999999", "--active", "true"], "there is no project 999999"],
  [["project", "create"], "name"],
  [["project", "create", ""], "not a name"],
  [["project", "create", " \u00a0 "], "not a name"],
  [["project", "create", "a\tb"], "not a name"],
  [["project", "create", "x".repeat(256)], "not a name"],
  [["project", "create", "one", "two"], "too many arguments"],
  [["project", "update", "1"], "nothing to change"],
  [["project", "update", "-1", "--active", "true"], "-1"],
  [["signature", "create", "--role", "service", "--signature", ""], "16 to 256"],
  [["signature", "revoke", "-1"], "-1"],
  [["devices", "import", "/nowhere.jsonl"], '"/nowhere.jsonl" cannot be read'],
  [["devices", "import", ""], '"" cannot be read'],
  [["devices", "import", "/"], '"/" is a folder'],
  [["nonsense"], "nonsense"],
])("bad usage %j ends with 2 and one line", async (args, said) => {
  const { err, code } = await run(args);
  expect(code).toBe(2);
  expect(err).toContain(said);
  expect(err.trimEnd().split("\n")).toHaveLength(1);
});

test("a bad configuration is reported whole, in one line", async () => {
  const { err, code } = await run(["migrate"], {
    PORT: "http",
    COMMIT_BYTES: "1",
    LOG_LEVEL: "loud",
  });
  expect(code).toBe(2);
  for (const name of ["PORT", "COMMIT_BYTES", "LOG_LEVEL"]) expect(err).toContain(name);
  expect(err.trimEnd().split("\n")).toHaveLength(1);
});

test("migrating again changes nothing, and PG variables of other programs neither", async () => {
  for (const env of [{}, FOREIGN])
    expect(await run(["migrate"], env)).toMatchObject({
      code: 0,
      out: "the database is up to date\n",
    });
});

test("serve without a database says what it needs", async () => {
  const { err, code } = await runCommand(["serve"], { DATA_DIR: dataDir });
  expect({ err, code }).toMatchObject({ code: 2, err: expect.stringContaining("DATABASE_URL") });
});

test.concurrent.each(["start", "serve", "migrate"])(
  "%s names PostgreSQL when that refuses or says nothing",
  async (command) => {
    await using silent = await TcpProxy.open(databaseUrl);
    silent.freeze();
    for (const [url, cause] of [
      [`postgres://floodgate@127.0.0.1:${await freePort()}/postgres`, "ECONNREFUSED"],
      [silent.urlOf(databaseUrl), "CONNECT_TIMEOUT"],
    ] as const) {
      const { err, code } = await run([command], { DATABASE_URL: url, PORT: "0" });
      // EX_TEMPFAIL: a service manager may try again.
      expect(code).toBe(75);
      expect(err).toStartWith("floodgate: PostgreSQL (DATABASE_URL) is away: ");
      expect(err).toContain(cause);
    }
  },
  TIMEOUT_MS,
);
