import { closeSync, existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { childrenOf, pidsOf } from "../support/children.ts";
import { runCommand } from "../support/command.ts";
import { eventually } from "../support/eventually.ts";
import { freePort } from "../support/free-port.ts";
import { openPipe } from "../support/pipes.ts";
import { ServerProcess, envOf } from "../support/server-process.ts";
import { TcpProxy } from "../support/tcp-proxy.ts";
import { MAIN } from "../support/program.ts";

const app = TestApp.forTests();

const start = async (workers: number, env = envOf(app)) =>
  await ServerProcess.start({ ...env, WORKERS: String(workers) }, [MAIN, "start"]);

/** A request on a connection of its own. */
async function isServed(url: string): Promise<boolean> {
  const answer = await fetch(`${url}/livez`, { keepalive: false }).catch(() => undefined);
  return answer?.ok === true;
}

test("start keeps its processes: one that is killed is replaced, and the others go on", async () => {
  await using server = await start(2);
  const serving = await pidsOf(server.pid, "serve");
  const [worker = 0] = await pidsOf(server.pid, "work");
  const [first = 0] = serving;
  for (const pid of [first, worker]) process.kill(pid, "SIGKILL");
  await eventually("both are replaced", async () => {
    const [servers, workers] = [
      await pidsOf(server.pid, "serve"),
      await pidsOf(server.pid, "work"),
    ];
    return (
      servers.length === 2 &&
      !servers.includes(first) &&
      workers.length === 1 &&
      !workers.includes(worker)
    );
  });
  await eventually("it serves", async () => await isServed(server.url));
  server.signal("SIGTERM");
  expect(await server.exited).toBe(0);
  expect(await isServed(server.url)).toBe(false);
});

test("processes that end with start's own end leave nothing behind", async () => {
  await using server = await start(2);
  const children = await childrenOf(server.pid);
  await server.kill();
  await haveEnded(children);
});

test.each([
  ["serve", 0],
  ["serve", 150],
  ["work", 0],
  ["work", 150],
  ["work", 400],
])(
  "start and the reader of its log killed at once, %s begun %p ms before, leave nothing behind",
  async (command, ms) => {
    const pipe = openPipe();
    await using reader = Bun.spawn(["cat"], { stdio: [pipe.reader, "ignore", "ignore"] });
    await using started = Bun.spawn([process.execPath, MAIN, "start"], {
      env: { ...process.env, ...envOf(app), WORKERS: "1", LOG_LEVEL: "info" },
      stdio: ["ignore", pipe.writer, pipe.writer],
    });
    for (const end of [pipe.reader, pipe.writer]) closeSync(end);
    await eventually(
      `${command} begins`,
      async () => (await pidsOf(started.pid, command)).length > 0,
      30_000,
    );
    await Bun.sleep(ms);
    const children = await childrenOf(started.pid);
    reader.kill("SIGKILL");
    started.kill("SIGKILL");
    await haveEnded(children);
  },
  60_000,
);

test("a process that cannot serve from the beginning ends start with an error", async () => {
  await using apart = await TestApp.start();
  await apart.sql`alter table projects rename to moved`;
  const { code, err } = await runCommand(["start"], envOf(apart));
  expect({ code, err }).toMatchObject({
    code: 2,
    err: expect.stringMatching(/projects.*\n.*ended before it was ready/),
  });
});

test("start right after a kill of start waits until what was left has gone", async () => {
  const env = {
    ...envOf(app),
    PORT: String(await freePort()),
    METRICS_PORT: String(await freePort()),
  };
  await using killed = await start(1, env);
  const [left = 0] = await pidsOf(killed.pid, "serve");
  await killed.kill();
  await using server = await start(1, env);
  expect(await pidsOf(server.pid, "serve")).not.toContain(left);
  expect(await isServed(server.url)).toBe(true);
});

// These wait for a long time, so they do it together.
test.concurrent("a serving process that dies while PostgreSQL is away comes back with it, and the others go on", async () => {
  await using proxy = await TcpProxy.open(app.databaseUrl);
  await using server = await start(2, {
    ...envOf(app),
    DATABASE_URL: proxy.urlOf(app.databaseUrl),
  });
  const [first = 0, second = 0] = await pidsOf(server.pid, "serve");
  const seen = new Set([first, second]);
  await proxy.refuse();
  process.kill(first, "SIGKILL");
  await eventually(
    "it has been tried often",
    async () => {
      for (const pid of await pidsOf(server.pid, "serve")) seen.add(pid);
      return seen.size > 7;
    },
    30_000,
  );
  await proxy.restore();
  await eventually("both serve", async () => {
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    return /^floodgate_processes\{command="serve".*\} 2$/m.test(metrics);
  });
  expect(await pidsOf(server.pid, "serve")).toContain(second);
  server.signal("SIGTERM");
  expect(await server.exited).toBe(0);
}, 180_000);

test.concurrent("a process that crashes again and again ends start with an error", async () => {
  await using apart = await TestApp.start();
  await using server = await start(1, envOf(apart));
  // Nothing can serve from such a database.
  await apart.sql`alter table projects rename to moved`;
  const [pid = 0] = await pidsOf(server.pid, "serve");
  process.kill(pid, "SIGKILL");
  expect(await server.exited).toBe(1);
}, 180_000);

test.concurrent("a port that another start's processes share is taken", async () => {
  await using server = await start(2);
  const { port } = new URL(server.url);
  const second = await runCommand(["start"], { ...envOf(app), PORT: port, WORKERS: "2" });
  expect(second).toMatchObject({
    code: 2,
    err: expect.stringContaining(`cannot listen on 127.0.0.1:${port}`),
  });
}, 180_000);

test("an embedded PostgreSQL that dies is started again, and the processes go on with it", async () => {
  const folder = await mkdtemp(join(tmpdir(), "floodgate-supervisor-"));
  const env = { PORT: "0", HOST: "127.0.0.1", DATA_DIR: folder, DATABASE_URL: "" };
  const isReady = async () => (await fetch(`${server.url}/readyz`)).ok;
  await using server = await start(1, env);
  try {
    const children = await childrenOf(server.pid);
    const first = await postmasterOf(folder);
    process.kill(first, "SIGKILL");
    await eventually("it is noticed", async () => !(await isReady()));
    await eventually("all is well again", isReady, 20_000);
    expect(await postmasterOf(folder)).not.toBe(first);
    expect(await childrenOf(server.pid)).toEqual(children);
    server.signal("SIGTERM");
    expect(await server.exited).toBe(0);
    expect(existsSync(join(folder, "postgres/postmaster.pid"))).toBe(false);
  } finally {
    await rm(folder, { recursive: true });
  }
});

async function haveEnded(processes: { pid: number }[]): Promise<void> {
  await eventually(
    "all have ended",
    async () => (await Promise.all(processes.map(hasEnded))).every(Boolean),
    30_000,
  );
}

async function hasEnded({ pid }: { pid: number }): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => " Z ");
  return stat.includes(" Z ");
}

async function postmasterOf(folder: string): Promise<number> {
  return Number.parseInt(await readFile(join(folder, "postgres/postmaster.pid"), "utf8"));
}
