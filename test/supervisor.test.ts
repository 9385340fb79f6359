import { readFile } from "node:fs/promises";

import { afterAll, beforeAll, expect, test } from "bun:test";

import { TestApp } from "./support/app.ts";
import { childrenOf, pidsOf } from "./support/children.ts";
import { eventually } from "./support/eventually.ts";
import { ServerProcess, envOf } from "./support/server-process.ts";

let app: TestApp;

beforeAll(async () => {
  app = await TestApp.start();
});

afterAll(async () => {
  await app[Symbol.asyncDispose]();
});

const start = async (workers: number, env = envOf(app)) =>
  await ServerProcess.start({ ...env, WORKERS: String(workers) }, ["src/main.ts", "start"]);

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
}, 30_000);

test("processes that end with start's own end leave nothing behind", async () => {
  await using server = await start(2);
  const children = await childrenOf(server.pid);
  await server.kill();
  await eventually("all have ended", async () => {
    const alive = await Promise.all(
      children.map(({ pid }) => readFile(`/proc/${pid}/stat`, "utf8").catch(() => "Z")),
    );
    return alive.every((stat) => / Z |^Z$/.test(stat));
  });
}, 30_000);

test("a process that dies again and again ends start with an error", async () => {
  await using apart = await TestApp.start();
  await using server = await start(1, envOf(apart));
  // Nothing can serve from such a database.
  await apart.sql`alter table projects rename to moved`;
  const [pid = 0] = await pidsOf(server.pid, "serve");
  process.kill(pid, "SIGKILL");
  expect(await server.exited).toBe(1);
}, 60_000);
