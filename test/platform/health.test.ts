import { rename } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "bun:test";
import { pino } from "pino";

import { startServer } from "../../src/server.ts";
import { TestApp } from "../support/app.ts";
import { FaultyObjects } from "../support/faulty-objects.ts";
import { TcpProxy } from "../support/tcp-proxy.ts";

const READY = { status: "ok", postgres: "ok", objects: "ok" };

let app: TestApp;

beforeAll(async () => {
  app = await TestApp.start();
});

afterAll(async () => {
  await app[Symbol.asyncDispose]();
});

async function ready(url: string): Promise<[number, unknown]> {
  const answer = await fetch(new URL("/readyz", url));
  return [answer.status, await answer.json()];
}

test("a server that can do its work is alive and ready", async () => {
  const alive = await app.fetch("/livez");
  expect([alive.status, await alive.json()]).toEqual([200, { status: "ok" }]);
  expect(await ready(app.url)).toEqual([200, READY]);
  expect(await (await app.fetch("/")).json()).toEqual({ name: "floodgate", docs: "/docs" });
});

test("with an S3 server it is ready, too", async () => {
  await using own = await TestApp.start({ store: "s3" });
  expect(await ready(own.url)).toEqual([200, READY]);
});

test("a lost store folder is named while it is gone", async () => {
  const folder = join(app.config.dataDir, "objects");
  await rename(folder, `${folder}.away`);
  try {
    const down = { status: "unavailable", postgres: "ok", objects: "down" };
    expect(await ready(app.url)).toEqual([503, down]);
    expect((await app.fetch("/livez")).status).toBe(200);
  } finally {
    await rename(`${folder}.away`, folder);
  }
  expect(await ready(app.url)).toEqual([200, READY]);
});

test("a store that does not answer is named within seconds", async () => {
  const objects = new FaultyObjects();
  await using own = await TestApp.start({
    wrapObjects: (inner) => {
      objects.wrap(inner);
      return Object.assign(objects, { ping: async () => await new Promise<void>(() => undefined) });
    },
  });
  const startedMs = performance.now();
  const down = { status: "unavailable", postgres: "ok", objects: "down" };
  expect(await ready(own.url)).toEqual([503, down]);
  expect(performance.now() - startedMs).toBeLessThan(4000);
});

test.each(["refuse", "freeze"] as const)(
  "a database that is gone (%s) is named while it is gone",
  async (how) => {
    await using proxy = await TcpProxy.open(app.databaseUrl);
    const log = pino({ level: "silent" });
    const server = await startServer(app.config, proxy.urlOf(app.databaseUrl), { log });
    try {
      expect(await ready(server.url)).toEqual([200, READY]);
      await proxy[how]();
      const down = { status: "unavailable", postgres: "down", objects: "ok" };
      expect(await ready(server.url)).toEqual([503, down]);
      expect((await fetch(new URL("/livez", server.url))).status).toBe(200);
      await proxy.restore();
      const until = performance.now() + 10_000;
      while ((await ready(server.url))[0] !== 200 && performance.now() < until) await Bun.sleep(50);
      expect(await ready(server.url)).toEqual([200, READY]);
    } finally {
      await server.stop();
    }
  },
  20_000,
);
