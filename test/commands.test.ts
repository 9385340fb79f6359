import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { Type } from "typebox";
import { Value } from "typebox/value";

import { encodeProjectID } from "../src/projects/codec.ts";
import { runCommand } from "./support/command.ts";
import { freePort } from "./support/free-port.ts";
import { freshDatabase } from "./support/postgres.ts";
import { TcpProxy } from "./support/tcp-proxy.ts";

const MAIN = join(import.meta.dir, "../src/main.ts");
const TIMEOUT_MS = 60_000;
/** Meant for other programs of PostgreSQL; followed here, none of them would let it start. */
const FOREIGN = {
  PGTARGETSESSIONATTRS: "any",
  PGHOST: "nowhere.invalid",
  PGHOSTADDR: "192.0.2.1",
  PGPORT: "1",
  PGUSER: "stranger",
  PGPASSWORD: "wrong",
  PGDATABASE: "none",
  PGDATA: "/nowhere",
  PGOPTIONS: "-c nonsense=1",
  PGSSLMODE: "verify-full",
  PGSSL: "require",
  PGSSLROOTCERT: "/nowhere",
  PGSSLNEGOTIATION: "direct",
  PGPASSFILE: "/nowhere",
  PGSERVICE: "none",
  PGCONNECT_TIMEOUT: "0.001",
  PGMAX: "0",
  PGBACKOFF: "x",
  PGFETCH_TYPES: "x",
  PGCLIENTENCODING: "EUC_JP",
  PGAPPNAME: "other",
};

const Project = Type.Object({
  id: Type.Integer(),
  name: Type.String(),
  platform: Type.String(),
  projectID: Type.Integer(),
  projectKey: Type.String(),
});
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
  expect(Value.Parse(Project, JSON.parse(updated.out))).toEqual(created);
  const { projects } = Value.Parse(
    Projects,
    JSON.parse((await run(["project", "list", "--json"])).out),
  );
  expect(projects).toContainEqual(created);
  expect((await run(["project", "list"])).out).toContain(`${created.projectKey}\tsampled\n`);
});

test.each([
  [["project", "create", "x", "--platform", "windows"], "--platform"],
  [["project", "create", "x", "--id", "0"], "--id"],
  [["project", "update", "1", "--sample-rate", "101"], "--sample-rate"],
  [["project", "update", "1", "--active", "maybe"], "--active"],
  [["project", "update", "1", "--daily-bytes", "0"], "--daily-bytes"],
  [["project", "update", "1", "--daily-bytes", "none"], "--daily-bytes"],
  [["project", "update", "999999", "--active", "true"], "there is no project 999999"],
  [["project", "create"], "name"],
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

test.each([
  ["x86_64-conda-linux-gnu", ["start", "serve"]],
  ["256.1.1.1", ["start"]],
  ["192.0.2.1", ["start"]],
  ["http://localhost", ["serve"]],
])("a HOST %s that nothing can listen on is called that", async (HOST, commands) => {
  for (const command of commands) {
    const env = { HOST, PORT: "0", DATA_DIR: join(dataDir, "nowhere") };
    const { err, code } = await run([command], env);
    expect({ err, code }).toEqual({
      code: 2,
      err: `floodgate: cannot listen on HOST "${HOST}": it is neither an address nor a name of this machine (unset it, or set 0.0.0.0 for all of its addresses)\n`,
    });
  }
});

test("a data folder that cannot be made is called that", async () => {
  const { err, code } = await runCommand(["start"], { DATA_DIR: "/proc/nowhere", PORT: "0" });
  expect({ err, code }).toMatchObject({
    code: 2,
    err: expect.stringContaining("cannot use the data folder /proc/nowhere (DATA_DIR): "),
  });
});

test("serve without a database says what it needs", async () => {
  const { err, code } = await runCommand(["serve"], { DATA_DIR: dataDir });
  expect({ err, code }).toMatchObject({ code: 2, err: expect.stringContaining("DATABASE_URL") });
});

test.each(["start", "serve", "migrate"])(
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

test(
  "start serves from nothing, shares its folder with the command line but not with a second start, and ends with SIGTERM",
  async () => {
    const env = {
      DATA_DIR: join(dataDir, "start"),
      HOST: "127.0.0.1",
      LOG_LEVEL: "error",
      ...FOREIGN,
    };
    const begin = () =>
      Bun.spawn([process.execPath, MAIN, "start"], {
        env: { PATH: process.env["PATH"] ?? "", PORT: "0", WORKERS: "2", ...env },
        stdout: "pipe",
        stderr: "inherit",
      });
    expect(await runCommand(["key", "show"], env)).toMatchObject({
      code: 2,
      err: expect.stringContaining("no server key in "),
    });
    const server = begin();
    const greeting = await readUntil(server.stdout, "trackerVersion");
    const [, curl = ""] = greeting.match(/^ {2}(curl .*)$/m) ?? [];
    const answer = await runShell(curl);
    expect(JSON.parse(answer)).toMatchObject({ projectID: "1" });

    // The key that it shows opens on every process, and nothing else does.
    const [, serverKey = "none"] = greeting.match(/X-Server-Key: (\S+)$/m) ?? [];
    const sessions = `${greeting.match(/http\S+(?=,)/)?.[0]}/v1/sessions?projectId=1`;
    for (let nth = 0; nth < 8; nth++) {
      const read = async (headers: Record<string, string>) =>
        (await fetch(sessions, { headers, keepalive: false })).status;
      expect([await read({}), await read({ "x-server-key": serverKey })]).toEqual([403, 200]);
    }
    expect(await runCommand(["key", "show"], env)).toMatchObject({ out: `${serverKey}\n` });
    const json = await runCommand(["key", "show", "--json"], env);
    expect(JSON.parse(json.out)).toEqual({ serverKey });
    expect(await runCommand(["key", "show"], { ...env, SERVER_KEYS: "own" })).toMatchObject({
      code: 2,
      err: expect.stringContaining("those of SERVER_KEYS"),
    });

    expect((await runCommand(["project", "list"], env)).out).toContain("demo");
    const second = await runCommand(["start"], { ...env, PORT: "0" });
    expect(second).toMatchObject({
      code: 2,
      err: expect.stringContaining("in use by another Floodgate"),
    });

    const [, port = ""] = greeting.match(/:(\d+)/) ?? [];
    const taken = await runCommand(["start"], {
      DATA_DIR: join(dataDir, "other"),
      HOST: "127.0.0.1",
      PORT: port,
      LOG_LEVEL: "error",
    });
    expect(taken).toMatchObject({
      code: 2,
      err: expect.stringContaining(`cannot listen on 127.0.0.1:${port}`),
    });

    server.kill("SIGTERM");
    expect(await server.exited).toBe(0);
    // The embedded database has ended with it; the command line starts it for itself.
    expect((await runCommand(["project", "list"], env)).out).toContain("demo");

    // It keeps its key and shows it no more.
    const later = begin();
    const text = await readUntil(later.stdout, "trackerVersion");
    expect(text).toContain("`floodgate key show` prints it");
    expect(text).not.toContain(serverKey);
    expect(await runCommand(["key", "show"], env)).toMatchObject({ out: `${serverKey}\n` });
    later.kill("SIGTERM");
    expect(await later.exited).toBe(0);
  },
  2 * TIMEOUT_MS,
);

test.each([[["serve"]], [["start"]]])(
  "%j with DATABASE_URL makes no key: it warns once, and management answers 403",
  async (args) => {
    const folder = join(dataDir, `keyless-${args.join()}`);
    const child = Bun.spawn([process.execPath, MAIN, ...args], {
      env: {
        PATH: process.env["PATH"] ?? "",
        DATABASE_URL: databaseUrl,
        TOKEN_SECRET: "secret",
        DATA_DIR: folder,
        PORT: "0",
        HOST: "127.0.0.1",
        WORKERS: "2",
      },
      stderr: "pipe",
    });
    const log = await readUntil(child.stderr, args[0] === "start" ? '"started"' : '"listening"');
    expect(log.match(/SERVER_KEYS/g)).toHaveLength(1);
    const [, url = ""] = log.match(/"url":"([^"]+)"/) ?? [];
    for (const key of ["", "undefined", "null"]) {
      const answer = await fetch(`${url}v1/sessions?projectId=1`, {
        headers: { "x-server-key": key },
      });
      expect(answer.status).toBe(403);
    }
    child.kill("SIGTERM");
    expect(await child.exited).toBe(0);
    expect(await run(["key", "show"], { DATA_DIR: folder })).toMatchObject({
      code: 2,
      err: expect.stringContaining("set SERVER_KEYS"),
    });
  },
  TIMEOUT_MS,
);

async function readUntil(stream: ReadableStream<Uint8Array>, text: string): Promise<string> {
  const decoder = new TextDecoder();
  let read = "";
  for await (const chunk of stream) {
    read += decoder.decode(chunk, { stream: true });
    if (read.includes(text) && read.endsWith("\n")) return read;
  }
  throw new Error(`the program ended after: ${read}`);
}

async function runShell(command: string): Promise<string> {
  return await new Response(Bun.spawn(["sh", "-c", command], { stdout: "pipe" }).stdout).text();
}
