import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pino } from "pino";

import { readConfig } from "../../src/platform/config/config.ts";
import { type Sql, openDatabase } from "../../src/platform/database/database.ts";
import { isAway } from "../../src/platform/database/postgres-errors.ts";
import { startServer } from "../../src/processes/server.ts";
import { runWork } from "../../src/processes/work.ts";
import { testEnv } from "../support/app.ts";
import { childrenOf } from "../support/children.ts";
import { eventually } from "../support/eventually.ts";
import { OpenTimers } from "../support/open-timers.ts";
import { freshDatabase } from "../support/postgres.ts";
import { redisEnv } from "../support/redis-server.ts";
import { TcpProxy } from "../support/tcp-proxy.ts";
import { MAIN } from "../support/program.ts";

const log = pino({ level: "silent" });
const PIECES_MAX = 500;

let databaseUrl: string;
let sql: Sql;
let env: Record<string, string>;
let database: TcpProxy;
/** The way to the same database past a pooler. */
let direct: TcpProxy;
let redis: TcpProxy;

beforeAll(async () => {
  databaseUrl = await freshDatabase();
  sql = openDatabase(databaseUrl, { connections: 1 });
});

afterAll(async () => {
  await sql.end();
});

beforeEach(async () => {
  await sql`truncate session_worker_leases`;
  const redisVariables = await redisEnv();
  database = await TcpProxy.open(databaseUrl);
  direct = await TcpProxy.open(databaseUrl);
  redis = await TcpProxy.open(redisVariables.REDIS_URL);
  env = {
    ...(await testEnv("files", database.urlOf(databaseUrl))),
    ...redisVariables,
    REDIS_URL: redis.urlOf(redisVariables.REDIS_URL),
  };
});

afterEach(async () => {
  for (const proxy of [database, direct, redis]) await proxy[Symbol.asyncDispose]();
  rmSync(env["DATA_DIR"] ?? "", { recursive: true, force: true });
});

/** Starts a server and ends it. Returns why it did not start. */
async function startAndEnd(): Promise<unknown> {
  const config = readConfig(env);
  try {
    await using server = await startServer(config, config.databaseUrl ?? "", { log });
    expect(server.url).toStartWith("http://");
    for (const proxy of [database, direct]) proxy.refuseAfter(Number.POSITIVE_INFINITY);
    return undefined;
  } catch (error) {
    return error;
  }
}

/** Begins the background work and ends it. Returns why it did not begin. */
async function workAndEnd(): Promise<unknown> {
  const config = readConfig(env);
  const stopping = new AbortController();
  const working = runWork(config, config.databaseUrl ?? "", stopping.signal);
  const failed = working.then(() => undefined).catch((error: unknown) => error);
  await Promise.race([failed, Bun.sleep(100)]);
  stopping.abort();
  return await failed;
}

async function expectNothingLeft(timers: OpenTimers): Promise<void> {
  await expectClosed(timers);
  expect(await sql`select number from session_worker_leases`).toHaveLength(0);
}

async function expectClosed(timers: OpenTimers): Promise<void> {
  const proxies = [database, direct, redis];
  await Promise.all(proxies.map(async (proxy) => await proxy.restore()));
  const connections = () => proxies.reduce((sum, proxy) => sum + proxy.connections, 0);
  const isOver = () => timers.all.length + connections() === 0;
  await eventually("it has ended", isOver).catch(() => undefined);
  expect(timers.all).toEqual([]);
  expect(connections()).toBe(0);
}

/** Calls `begin` while the proxy refuses in the middle of it, ever later, until that is after its end. */
async function refuseEverLater(
  proxy: TcpProxy,
  begin: () => Promise<unknown>,
  check: (failure: unknown) => void,
): Promise<number> {
  for (let pieces = 0; pieces < PIECES_MAX; pieces++) {
    using timers = new OpenTimers();
    proxy.refuseAfter(pieces);
    const failure = await begin();
    if (!proxy.isRefusing) {
      expect(failure).toBeUndefined();
      await expectNothingLeft(timers);
      return pieces;
    }
    if (failure !== undefined) check(failure);
    await expectNothingLeft(timers);
  }
  throw new Error(`more than ${PIECES_MAX} pieces`);
}

function expectAway(failure: unknown): void {
  expect(failure instanceof Error && isAway(failure), String(failure)).toBe(true);
}

describe("nothing is left behind", () => {
  test("by a server whose database refuses in the middle of its start", async () => {
    const pieces = await refuseEverLater(database, startAndEnd, expectAway);
    expect(pieces).toBeGreaterThan(10);
  });

  test("by a server whose database refuses while PostgreSQL carries the bus", async () => {
    env = { ...env, REDIS_URL: "" };
    const pieces = await refuseEverLater(database, startAndEnd, expectAway);
    expect(pieces).toBeGreaterThan(15);
  });

  test("by a server whose bus alone refuses", async () => {
    env = { ...env, REDIS_URL: "", DATABASE_DIRECT_URL: direct.urlOf(databaseUrl) };
    const pieces = await refuseEverLater(direct, startAndEnd, expectAway);
    expect(pieces).toBeGreaterThan(3);
  });

  test("by work whose database refuses in the middle of its start", async () => {
    const pieces = await refuseEverLater(database, workAndEnd, expectAway);
    expect(pieces).toBeGreaterThan(10);
  });

  test.each([0, 3, 7, 11])(
    "that would keep the process of a server alive, %p pieces after which its database refuses",
    async (pieces) => {
      database.refuseAfter(pieces);
      const child = run(["test/support/start-and-fail.ts"]);
      expect(await child.exited).toBe(0);
    },
  );

  test.each([0, 10, 20, 30, 45, 60, 75])(
    "by start and its processes, %p pieces after which its database refuses",
    async (pieces) => {
      env = { ...env, WORKERS: "2" };
      using timers = new OpenTimers();
      database.refuseAfter(pieces);
      const child = run([MAIN, "start"]);
      const seen = new Set<number>();
      while (child.exitCode === null && child.signalCode === null) {
        for (const { pid, command } of await childrenOf(child.pid)) {
          seen.add(pid);
          // Work goes on without a database.
          if (command === "work") child.kill("SIGTERM");
        }
        await Bun.sleep(20);
      }
      expect([...seen].filter((pid) => existsSync(`/proc/${pid}`))).toEqual([]);
      // The lease of a process that had started runs out.
      await expectClosed(timers);
    },
  );

  type Wrong = [what: string, wrong: () => Record<string, string>];
  const WRONG: Wrong[] = [
    ["cannot have its folder of objects", () => ({ DATA_DIR: spoilt(env["DATA_DIR"] ?? "") })],
  ];

  test.each<Wrong>([
    ...WRONG,
    ["cannot listen", () => ({ PORT: portOf(database.urlOf(databaseUrl)), HOST: "127.0.0.1" })],
  ])("by a server that %s", async (_what, wrong) => {
    env = { ...env, ...wrong() };
    using timers = new OpenTimers();
    expect(await startAndEnd()).toBeInstanceOf(Error);
    await expectNothingLeft(timers);
  });

  test.each<Wrong>([
    ...WRONG,
    ["cannot listen", () => ({ METRICS_PORT: portOf(database.urlOf(databaseUrl)) })],
    ["cannot read its credentials", () => ({ FCM_CREDENTIALS: "/nowhere" })],
  ])("by work that %s", async (_what, wrong) => {
    env = { ...env, ...wrong() };
    using timers = new OpenTimers();
    expect(await workAndEnd()).toBeInstanceOf(Error);
    await expectNothingLeft(timers);
  });
});

function run(args: string[]): Bun.Subprocess {
  return Bun.spawn([process.execPath, ...args], {
    cwd: join(import.meta.dir, "../.."),
    env: { ...process.env, ...env },
    stdio: ["ignore", "ignore", "ignore"],
  });
}

/** The data folder, with a file where the folder of objects should be. */
function spoilt(dataDir: string): string {
  writeFileSync(join(dataDir, "objects"), "");
  return dataDir;
}

function portOf(url: string): string {
  return new URL(url).port;
}
