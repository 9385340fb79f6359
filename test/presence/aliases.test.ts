import { afterAll, beforeAll, expect, test } from "bun:test";
import { rmSync } from "node:fs";

import { objectOf } from "../support/answers.ts";
import { testEnv } from "../support/app.ts";
import { EventStream } from "../support/event-stream.ts";
import { eventually } from "../support/eventually.ts";
import { freePort } from "../support/free-port.ts";
import { freshDatabase } from "../support/postgres.ts";
import { aUser, ping, watching } from "../support/presence.ts";
import { RedisServer } from "../support/redis-server.ts";
import { ServerProcess } from "../support/server-process.ts";

// An empty variable counts as absent.
const UNSET = { PORT: "", HOST: "", LISTEN: "", REDIS_URL: "", REDIS: "" };

let env: Record<string, string>;

beforeAll(async () => {
  env = { ...(await testEnv("files", await freshDatabase())), ...UNSET };
});
afterAll(() => rmSync(env["DATA_DIR"] ?? "", { recursive: true, force: true }));

/** Resolves once the server is ready with Redis, which it connects to while it already serves. */
async function usesRedis(url: string): Promise<void> {
  await eventually("Redis is used", async () => {
    const { status, redis } = await objectOf(fetch(`${url}/readyz`));
    return status === "ok" && redis === "ok";
  });
}

async function isAlive(url: string): Promise<boolean> {
  return await fetch(`${url}/livez`).then(
    ({ ok }) => ok,
    () => false,
  );
}

test("LISTEN and REDIS of the old heartbeat service are enough to run ours", async () => {
  await using redis = await RedisServer.start();
  const ports = [await freePort(), await freePort()] as const;
  const hosted = { ...env, LISTEN: `127.0.0.1:${ports[0]}`, REDIS: `127.0.0.1:${redis.port}` };
  const bare = { ...env, LISTEN: `:${ports[1]}`, REDIS: `:${redis.port}` };
  await using one = await ServerProcess.start(hosted);
  await using other = await ServerProcess.start(bare);
  expect(new URL(one.url).port).toBe(String(ports[0]));
  expect(new URL(other.url).port).toBe(String(ports[1]));
  for (const { url } of [one, other]) await usesRedis(url);

  const ann = aUser("ann");
  using stream = await EventStream.open(other, watching(ann));
  await ping(one, { userid: ann, status: "0" });
  expect(await stream.presence()).toMatchObject({ userid: ann, online: true });
  await redis.kill();
  expect(await objectOf(fetch(`${one.url}/readyz`))).toMatchObject({ redis: "down" });
});

test("LISTEN's host is where the server listens, and nowhere else", async () => {
  const port = await freePort();
  await using server = await ServerProcess.start({ ...env, LISTEN: `127.0.0.2:${port}` });
  expect(await isAlive(`http://127.0.0.2:${port}`)).toBe(true);
  expect(await isAlive(`http://127.0.0.1:${port}`)).toBe(false);
  expect(server.isRunning).toBe(true);
});

test("PORT, HOST and REDIS_URL win over LISTEN and REDIS", async () => {
  await using redis = await RedisServer.start();
  const [port, unused] = [await freePort(), await freePort()];
  const own = { PORT: `${port}`, HOST: "127.0.0.1", REDIS_URL: redis.url };
  const old = { LISTEN: `127.0.0.2:${unused}`, REDIS: `127.0.0.1:${unused}` };
  await using server = await ServerProcess.start({ ...env, ...own, ...old });
  expect(server.url).toBe(`http://127.0.0.1:${port}`);
  await usesRedis(server.url);
});

test("without either variable there is no Redis", async () => {
  await using server = await ServerProcess.start({ ...env, LISTEN: "127.0.0.1:0" });
  expect(await objectOf(fetch(`${server.url}/readyz`))).not.toHaveProperty("redis");
});
