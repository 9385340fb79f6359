import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterEach, beforeAll, beforeEach, expect, test } from "bun:test";

import { FOREIGN, bareEnv, runCommand } from "../support/command.ts";
import { endIn } from "../support/end-run.ts";
import { freshDatabase } from "../support/postgres.ts";
import { MAIN } from "../support/program.ts";

const TIMEOUT_MS = 60_000;

let databaseUrl = "";
/** TMPDIR of all programs that a test starts. */
let folder = "";

beforeAll(async () => {
  databaseUrl = await freshDatabase();
});
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "floodgate-start-"));
});
// Also ends what a test that failed has left running.
afterEach(async () => await endIn(folder));

/** Starts the program, which runs until it is told to end. */
function begin<Err extends "inherit" | "pipe">(
  args: string[],
  env: Record<string, string>,
  stderr: Err,
) {
  return Bun.spawn([process.execPath, MAIN, ...args], {
    env: { ...bareEnv(), TMPDIR: folder, HOST: "127.0.0.1", PORT: "0", WORKERS: "2", ...env },
    stdout: "pipe",
    stderr,
  });
}

async function run(args: string[], env: Record<string, string>) {
  return await runCommand(args, { TMPDIR: folder, ...env });
}

test(
  "start serves from nothing, shares its folder with the command line but not with a second start, and ends with SIGTERM",
  async () => {
    const env = { DATA_DIR: join(folder, "start"), LOG_LEVEL: "error", ...FOREIGN };
    expect(await run(["key", "show"], env)).toMatchObject({
      code: 2,
      err: expect.stringContaining("no server key in "),
    });
    const server = begin(["start"], env, "inherit");
    const greeting = await readUntil(server.stdout, "trackerVersion");
    const [, curl = ""] = greeting.match(/^ {2}(curl .*)$/m) ?? [];
    const answer = await runShell(curl);
    expect(JSON.parse(answer)).toMatchObject({ projectID: "1" });

    // The server key in the greeting works on every process, and no other key does.
    const [, serverKey = "none"] = greeting.match(/X-Server-Key: (\S+)$/m) ?? [];
    const sessions = `${greeting.match(/http\S+(?=,)/)?.[0]}/v1/sessions?projectId=1`;
    for (let nth = 0; nth < 8; nth++) {
      const read = async (headers: Record<string, string>) =>
        (await fetch(sessions, { headers, keepalive: false })).status;
      expect([await read({}), await read({ "x-server-key": serverKey })]).toEqual([403, 200]);
    }
    expect(await run(["key", "show"], env)).toMatchObject({ out: `${serverKey}\n` });
    const json = await run(["key", "show", "--json"], env);
    expect(JSON.parse(json.out)).toEqual({ serverKey });
    expect(await run(["key", "show"], { ...env, SERVER_KEYS: "own" })).toMatchObject({
      code: 2,
      err: expect.stringContaining("those in SERVER_KEYS"),
    });

    expect((await run(["project", "list"], env)).out).toContain("demo");
    const second = await run(["start"], { ...env, PORT: "0" });
    expect(second).toMatchObject({
      code: 2,
      err: expect.stringContaining("in use by another Floodgate"),
    });

    const [, port = ""] = greeting.match(/:(\d+)/) ?? [];
    const other = { DATA_DIR: join(folder, "other"), HOST: "127.0.0.1", PORT: port };
    const taken = await run(["start"], other);
    expect(taken).toMatchObject({
      code: 2,
      err: expect.stringContaining(`cannot listen on 127.0.0.1:${port}`),
    });

    server.kill("SIGTERM");
    expect(await server.exited).toBe(0);
    // The embedded database stopped with the server; the command line starts it for itself.
    expect((await run(["project", "list"], env)).out).toContain("demo");

    // A second start keeps the key and does not show it.
    const later = begin(["start"], env, "inherit");
    const text = await readUntil(later.stdout, "trackerVersion");
    expect(text).toContain("`floodgate key show` prints it");
    expect(text).not.toContain(serverKey);
    expect(await run(["key", "show"], env)).toMatchObject({ out: `${serverKey}\n` });
    later.kill("SIGTERM");
    expect(await later.exited).toBe(0);
  },
  2 * TIMEOUT_MS,
);

test.each([[["serve"]], [["start"]]])(
  "%j with DATABASE_URL makes no key: it warns once, and management answers 403",
  async (args) => {
    const env = { DATA_DIR: folder, DATABASE_URL: databaseUrl, TOKEN_SECRET: "secret" };
    const child = begin(args, env, "pipe");
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
    expect(await run(["key", "show"], env)).toMatchObject({
      code: 2,
      err: expect.stringContaining("set SERVER_KEYS"),
    });
  },
  TIMEOUT_MS,
);

test.each([
  ["x86_64-conda-linux-gnu", ["start", "serve"]],
  ["256.1.1.1", ["start"]],
  ["192.0.2.1", ["start"]],
  ["http://localhost", ["serve"]],
])("a HOST %s that nothing can listen on is called that", async (HOST, commands) => {
  for (const command of commands) {
    const env = { HOST, PORT: "0", DATABASE_URL: databaseUrl, TOKEN_SECRET: "secret" };
    const { err, code } = await run([command], env);
    expect({ err, code }).toEqual({
      code: 2,
      err: `floodgate: cannot listen on HOST "${HOST}": it is neither an address nor a name of this machine (unset it, or set 0.0.0.0 for all of its addresses)\n`,
    });
  }
});

test("a data folder that cannot be made is called that", async () => {
  const { err, code } = await run(["start"], { DATA_DIR: "/proc/nowhere", PORT: "0" });
  expect({ err, code }).toMatchObject({
    code: 2,
    err: expect.stringContaining("cannot use the data folder /proc/nowhere (DATA_DIR): "),
  });
});

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
