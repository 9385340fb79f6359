import { describe, expect, setDefaultTimeout, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { EventStream } from "../support/event-stream.ts";
import { eventually, timed } from "../support/eventually.ts";
import { PresenceSocket } from "../support/presence-socket.ts";
import { type Target, aUser, ping, snapshot, watching } from "../support/presence.ts";
import { RedisServer, testRedis } from "../support/redis-server.ts";
import { serverBeside } from "../support/requests.ts";
import { TcpProxy } from "../support/tcp-proxy.ts";

setDefaultTimeout(60_000);

// Two seconds, plus slack for a busy machine.
const LATE_MS = 2000 + 1500;
const NOTICED_MS = 5000;

async function readiness({ url }: Target): Promise<unknown> {
  return await (await fetch(`${url}/readyz`)).json();
}

/** Resolves when /readyz reports that state of the bus. */
async function becomes(target: Target, state: object, withinMs = NOTICED_MS): Promise<void> {
  const body = { postgres: "ok", objects: "ok", ...state };
  await eventually(
    JSON.stringify(state),
    async () => Bun.deepEquals(await readiness(target), body),
    withinMs,
  );
}

/** Expects that changes on one server soon reach the watchers and the snapshot of the other. */
async function expectHeard(from: Target, at: Target): Promise<void> {
  const ann = aUser("ann");
  using stream = await EventStream.open(at, watching(ann));
  using socket = await PresenceSocket.open(at);
  await socket.subscribe(ann);
  for (const status of ["2", "1", "0"]) {
    const seen = { userid: ann, clientid: "phone", status, online: true };
    const { ms } = await timed(async () => {
      await ping(from, { userid: ann, clientid: "phone", status });
      expect(await stream.presence()).toMatchObject(seen);
    });
    expect(await socket.presence()).toMatchObject(seen);
    expect(ms).toBeLessThan(LATE_MS);
  }
  const bob = aUser("bob");
  using watched = await EventStream.open(at, watching(bob));
  await ping(from, { userid: bob, clientid: "phone", status: "2" });
  const { ms } = await timed(
    async () =>
      await eventually("the snapshot knows", async () =>
        Bun.deepMatch({ [bob]: { status: "2", online: true } }, await snapshot(at, [bob])),
      ),
  );
  expect(ms).toBeLessThan(LATE_MS);
  expect(await watched.presence()).toMatchObject({ userid: bob, status: "2" });
}

describe("pings reach who watches on another server", () => {
  test.concurrent.each(["killed", "frozen"] as const)("while Redis is %s", async (how) => {
    await using redis = await RedisServer.start();
    await using app = await TestApp.start({ env: { REDIS_URL: redis.url } });
    await using other = await serverBeside(app);
    for (const server of [app, other]) await becomes(server, { status: "ok", redis: "ok" });
    if (how === "killed") await redis.kill();
    else redis.freeze();
    for (const server of [app, other]) await becomes(server, { status: "degraded", redis: "down" });
    await expectHeard(app, other);
    await expectHeard(other, app);
    if (how === "killed") await redis.restart();
    else redis.thaw();
    for (const server of [app, other]) await becomes(server, { status: "ok", redis: "ok" });
  });

  test.concurrent("when only the server that is told has lost Redis", async () => {
    const { url } = await testRedis();
    await using proxy = await TcpProxy.open(url);
    const prefix = `t-${crypto.randomUUID()}:`;
    await using app = await TestApp.start({ env: { REDIS_URL: url, REDIS_PREFIX: prefix } });
    const config = { ...app.config, redis: { url: proxy.urlOf(url), prefix } };
    await using other = await serverBeside(app, { config });
    for (const server of [app, other]) await becomes(server, { status: "ok", redis: "ok" });
    const ann = aUser("ann");
    using stream = await EventStream.open(app, watching(ann));
    await ping(other, { userid: ann, clientid: "phone", status: "2" });
    expect(await stream.presence()).toMatchObject({ status: "2" });
    await proxy.refuse();
    await ping(other, { userid: ann, clientid: "phone", status: "1" });
    const { ms } = await timed(async () => await stream.presence());
    expect(ms).toBeLessThan(NOTICED_MS + LATE_MS);
    await expectHeard(other, app);
    await proxy.restore();
    await becomes(other, { status: "ok", redis: "ok" });
  });

  test.concurrent("while PostgreSQL answers and does not notify", async () => {
    await using app = await TestApp.start();
    await using proxy = await TcpProxy.open(app.databaseUrl);
    await using other = await serverBeside(app, { databaseUrl: proxy.urlOf(app.databaseUrl) });
    for (const server of [app, other]) await becomes(server, { status: "ok" });
    proxy.abandonThose("listen ");
    await becomes(other, { status: "degraded", bus: "down" }, NOTICED_MS + 1000);
    await becomes(app, { status: "ok" });
    await expectHeard(app, other);
    await proxy.restore();
    proxy.cut();
    await becomes(other, { status: "ok" }, 2 * NOTICED_MS);
  });
});
