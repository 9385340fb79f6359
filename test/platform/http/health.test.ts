import { rename } from "node:fs/promises";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { describe, expect, test } from "bun:test";
import { pino } from "pino";

import { startServer } from "../../../src/processes/server.ts";
import { TestApp } from "../../support/app.ts";
import { undelayedMs } from "../../support/eventually.ts";
import { FaultyObjects } from "../../support/faulty-objects.ts";
import { TcpProxy } from "../../support/tcp-proxy.ts";

const NOTICED_MS = 5000;
const READY = { status: "ok", postgres: "ok", objects: "ok" };

const app = TestApp.forTests();

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
  objects.beforePing = async () => await new Promise<void>(() => undefined);
  await using own = await TestApp.start({ wrapObjects: objects.wrap });
  const startedMs = undelayedMs();
  const down = { status: "unavailable", postgres: "ok", objects: "down" };
  expect(await ready(own.url)).toEqual([503, down]);
  expect(undelayedMs() - startedMs).toBeLessThan(4000);
});

describe("within five seconds a server is not ready, and ready again, when", () => {
  const ways = ["refuse", "freeze"] as const;
  const cases = ways.flatMap((how) => [
    ["postgres", how] as const,
    ["objects", how] as const,
    ["redis", how] as const,
  ]);
  test.concurrent.each(cases)(
    "%s is gone and comes back (%s)",
    async (dependency, how) => {
      await using own = await TestApp.start({ store: "s3", redis: true });
      const { s3, redis } = own.config;
      if (s3?.endpoint === undefined || redis === undefined) throw new Error("not configured");
      const urls = { postgres: own.databaseUrl, objects: s3.endpoint, redis: redis.url };
      await using proxy = await TcpProxy.open(urls[dependency]);
      const url = (name: keyof typeof urls) =>
        name === dependency ? proxy.urlOf(urls[name]) : urls[name];
      const config = {
        ...own.config,
        s3: { ...s3, endpoint: url("objects").replace(/\/$/, "") },
        redis: { ...redis, url: url("redis") },
      };
      const server = await startServer(config, url("postgres"), {
        log: pino({ level: "silent" }),
      });
      const all = { postgres: "ok", objects: "ok", redis: "ok" };
      try {
        await becomes(server.url, 200, { ...all, status: "ok" });
        await proxy[how]();
        // Without Redis it serves on, and does not hear the others.
        const [code, status] = dependency === "redis" ? [200, "degraded"] : [503, "unavailable"];
        await becomes(server.url, code, { ...all, status, [dependency]: "down" });
        expect((await fetch(new URL("/livez", server.url))).status).toBe(200);
        await proxy.restore();
        await becomes(server.url, 200, { ...all, status: "ok" });
      } finally {
        await server[Symbol.asyncDispose]();
      }
    },
    30_000,
  );
});

async function becomes(url: string, code: number, body: object): Promise<void> {
  const startedMs = undelayedMs();
  let answer = await ready(url);
  while (!isDeepStrictEqual(answer, [code, body]) && undelayedMs() - startedMs < NOTICED_MS) {
    await Bun.sleep(20);
    answer = await ready(url);
  }
  expect(answer).toEqual([code, body]);
  expect(undelayedMs() - startedMs).toBeLessThan(NOTICED_MS);
}
