import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { eventually, timed } from "../support/eventually.ts";
import { RedisServer } from "../support/redis-server.ts";
import { type ServerBeside, serverBeside } from "../support/requests.ts";
import { TcpProxy } from "../support/tcp-proxy.ts";
import { UpdateApi } from "../support/updates.ts";

setDefaultTimeout(30_000);

const SEEN_MS_MAX = 1000;
const CHECK_MS_MAX = 300;

/** Refuses, or takes requests and never answers. */
const OUTAGES = ["refuse", "freeze"] as const;

describe.each(OUTAGES)("a database that does: %s", (outage) => {
  let app: TestApp;
  let api: UpdateApi;
  let proxy: TcpProxy;
  let server: ServerBeside;

  beforeAll(async () => {
    app = await TestApp.start();
    proxy = await TcpProxy.open(app.databaseUrl);
    server = await serverBeside(app, { databaseUrl: proxy.urlOf(app.databaseUrl) });
    api = (await UpdateApi.of(app)).at(server);
    await api.published({ version: "2264_00" });
    // From now on the process knows the signature and the build.
    expect(await api.list()).toHaveLength(1);
  });

  afterAll(async () => {
    await proxy.restore();
    await server[Symbol.asyncDispose]();
    await proxy[Symbol.asyncDispose]();
    await app[Symbol.asyncDispose]();
  });

  async function during(work: () => Promise<void>): Promise<void> {
    await proxy[outage]();
    try {
      await work();
    } finally {
      await proxy.restore();
    }
    await eventually("it is ready again", async () => (await api.get("/readyz")).status === 200);
  }

  test("leaves checks as they were, at their speed, and the process not ready", async () => {
    await during(async () => {
      await eventually("not ready", async () => (await api.get("/readyz")).status === 503);
      for (let nth = 0; nth < 20; nth++) {
        const { result, ms } = await timed(async () => await api.offered("2263_01"));
        expect(result.Version).toBe("2264_00");
        expect(ms).toBeLessThan(CHECK_MS_MAX);
        await Bun.sleep(50);
      }
      expect((await api.check("2263_01arm")).status).toBe(404);
    });
  });

  test("has publishing, listing and changing wait for another time", async () => {
    const version = "9000_01";
    await during(async () => {
      for (const answer of await Promise.all([
        api.publish({ version }),
        api.get("/api/v1/updates", api.headers),
        api.patch(1, { rollout: 50 }),
      ])) {
        expect([answer.status, answer.headers.get("content-type")]).toEqual([
          503,
          "text/plain; charset=utf-8",
        ]);
        expect(answer.headers.get("retry-after")).toMatch(/^[1-9]\d*$/);
        expect(await answer.text()).toMatch(/^[^\n]+\n$/);
      }
    });
    const update = await api.published({ version });
    expect((await api.offered("0001_01")).Id).toBe(update.Id);
  });
});

describe.each(["PostgreSQL", "Redis"] as const)("two processes over %s", (bus) => {
  let app: TestApp;
  let one: UpdateApi;
  let other: UpdateApi;
  let beside: ServerBeside;

  beforeAll(async () => {
    app = await TestApp.start({ redis: bus === "Redis" });
    beside = await serverBeside(app);
    one = await UpdateApi.of(app);
    other = one.at(beside);
  });

  afterAll(async () => {
    await beside[Symbol.asyncDispose]();
    await app[Symbol.asyncDispose]();
  });

  test("offer within a second what the other published or changed", async () => {
    for (const [from, to] of [
      [one, other],
      [other, one],
    ] as const) {
      const { Id } = await from.published();
      await eventually("offered", async () => await isOffered(to, Id), SEEN_MS_MAX);
      await from.patched(Id, { channel: "elsewhere" });
      await eventually("gone", async () => !(await isOffered(to, Id)), SEEN_MS_MAX);
      await from.patched(Id, { channel: "stable" });
      await eventually("back", async () => await isOffered(to, Id), SEEN_MS_MAX);
      await from.patched(Id, { withdrawn: true });
      await eventually("withdrawn", async () => !(await isOffered(to, Id)), SEEN_MS_MAX);
    }
  });

  test("offer at once what they published themselves", async () => {
    for (const api of [one, other, one]) {
      const { Id } = await api.published();
      expect(await isOffered(api, Id)).toBe(true);
      await api.patched(Id, { withdrawn: true });
      expect(await isOffered(api, Id)).toBe(false);
    }
  });

  test("download what the other published a moment ago", async () => {
    for (let nth = 0; nth < 5; nth++) {
      const update = await one.published();
      expect((await other.download(update)).status).toBe(200);
    }
  });
});

test("a publish is seen within a second by a process that has just lost PostgreSQL's notifications", async () => {
  await using app = await TestApp.start();
  await using proxy = await TcpProxy.open(app.databaseUrl);
  await using server = await serverBeside(app, { databaseUrl: proxy.urlOf(app.databaseUrl) });
  const api = await UpdateApi.of(app);
  for (let nth = 0; nth < 3; nth++) {
    proxy.cut();
    const { Id } = await api.published();
    const isSeen = async () => await isOffered(api.at(server), Id);
    await eventually("seen", isSeen, SEEN_MS_MAX);
  }
});

test("a publish is seen within a second while Redis is away, and after it is back", async () => {
  await using redis = await RedisServer.start();
  await using app = await TestApp.start({ env: { REDIS_URL: redis.url } });
  await using server = await serverBeside(app);
  const api = await UpdateApi.of(app);
  const isSeenInTime = async () => {
    const { Id } = await api.published();
    await eventually("seen", async () => await isOffered(api.at(server), Id), SEEN_MS_MAX);
  };
  await isSeenInTime();
  await redis.kill();
  await isSeenInTime();
  await redis.restart();
  await isSeenInTime();
});

async function isOffered(api: UpdateApi, id: number): Promise<boolean> {
  const answer = await api.check("0001_01");
  if (answer.status === 404) return false;
  return Object(await answer.json()).Id === id;
}
