import { describe, expect, test } from "bun:test";

import { objectOf } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { EventStream } from "../support/event-stream.ts";
import { eventually, timed } from "../support/eventually.ts";
import { Heartbeat } from "../support/heartbeat.ts";
import { PresenceSocket } from "../support/presence-socket.ts";
import {
  PresenceEvent,
  type Target,
  aUser,
  checked,
  ping,
  snapshot,
  watching,
} from "../support/presence.ts";
import { RedisServer } from "../support/redis-server.ts";
import { type ServerBeside, serverBeside } from "../support/requests.ts";

const PROMPT_MS = 1500;
const BACK_MS = 10_000;
const TEST_MS = 60_000;

type Pair = AsyncDisposable & { redis: RedisServer; app: TestApp; other: ServerBeside };

/** Two servers on a Redis of their own. */
async function aPair(env: Record<string, string> = {}): Promise<Pair> {
  const redis = await RedisServer.start();
  const app = await TestApp.start({ env: { ...env, REDIS_URL: redis.url } });
  const other = await serverBeside(app);
  const owners = [other, app, redis];
  await eventually("both hear Redis", async () => (await hears(app)) && (await hears(other)));
  return {
    redis,
    app,
    other,
    [Symbol.asyncDispose]: async () => {
      for (const owner of owners) await owner[Symbol.asyncDispose]();
    },
  };
}

async function readiness({ url }: Target): Promise<Record<string, unknown>> {
  return await objectOf(fetch(`${url}/readyz`));
}

async function hears(target: Target): Promise<boolean> {
  return (await readiness(target))["redis"] === "ok";
}

test.concurrent(
  "while Redis is gone each process serves its own subscribers; when it is back pings cross again",
  async () => {
    await using pair = await aPair();
    const { redis, app, other } = pair;
    const ann = aUser("ann");
    using stream = await EventStream.open(app, watching(ann));
    using socket = await PresenceSocket.open(other);
    await socket.subscribe(ann);
    await ping(app, { userid: ann, clientid: "phone", status: "0" });
    expect(await stream.presence()).toMatchObject({ status: "0" });
    expect(await socket.presence()).toMatchObject({ status: "0" });

    await redis.kill();
    const { ms } = await timed(async () => {
      await ping(app, { userid: ann, clientid: "phone", status: "1" });
      expect(await stream.presence()).toMatchObject({ status: "1", online: true });
    });
    expect(ms).toBeLessThan(PROMPT_MS);
    await ping(other, { userid: ann, clientid: "phone", status: "2" });
    expect(await socket.presence()).toMatchObject({ status: "2", online: true });
    for (const server of [app, other])
      expect(await readiness(server)).toEqual({
        status: "degraded",
        postgres: "ok",
        objects: "ok",
        redis: "down",
      });

    await redis.restart();
    await eventually(
      "Redis is back",
      async () => (await hears(app)) && (await hears(other)),
      BACK_MS,
    );
    await ping(app, { userid: ann, clientid: "phone", status: "5" });
    await eventually("it crosses", async () => (await socket.presence()).status === "5");
    await ping(other, { userid: ann, clientid: "phone", status: "6" });
    await eventually("it crosses back", async () => (await stream.presence()).status === "6");
  },
  TEST_MS,
);

test.concurrent(
  "what was pinged while Redis was gone is known everywhere once it is back",
  async () => {
    await using pair = await aPair();
    const { redis, app, other } = pair;
    const ann = aUser("ann");
    using stream = await EventStream.open(other, watching(ann));
    await redis.kill();
    await ping(app, { userid: ann, clientid: "phone", status: "2" });
    await redis.restart();
    await eventually("it is told", () => last(stream, ann) === "online", BACK_MS);
    expect(await snapshot(other, [ann])).toMatchObject({ [ann]: { status: "2", online: true } });
  },
  TEST_MS,
);

test.concurrent(
  "an emptied Redis loses no device for those who watch, and pings keep crossing",
  async () => {
    await using pair = await aPair();
    const { redis, app, other } = pair;
    const ann = aUser("ann");
    using stream = await EventStream.open(other, watching(ann));
    await ping(app, { userid: ann, clientid: "phone", status: "2" });
    expect(await stream.presence()).toMatchObject({ status: "2", online: true });

    await redis.flush();
    await ping(app, { userid: ann, clientid: "laptop", status: "1" });
    const seen = { clientid: "laptop", status: "2", online: true };
    expect(await stream.presence()).toMatchObject(seen);
    for (const server of [app, other])
      expect(await snapshot(server, [ann])).toMatchObject({ [ann]: { status: "2", online: true } });
    await ping(other, { userid: ann, clientid: "phone", status: "0" });
    expect(await stream.presence()).toMatchObject({ clientid: "phone", status: "0", online: true });
  },
  TEST_MS,
);

test.concurrent(
  "a frozen Redis delays neither pings nor subscriptions nor the snapshot",
  async () => {
    await using pair = await aPair();
    const { redis, app, other } = pair;
    const [ann, bob] = [aUser("ann"), aUser("bob")];
    using far = await EventStream.open(other, watching(ann));
    await ping(app, { userid: bob, status: "2" });
    redis.freeze();
    const steps: [string, () => Promise<void>][] = [
      ["a ping", async () => await ping(app, { userid: ann, status: "0" })],
      [
        "a subscription to one who is known",
        async () => {
          using stream = await EventStream.open(app, watching(ann));
          expect(await stream.presence()).toMatchObject({ userid: ann, status: "0", online: true });
        },
      ],
      [
        "a subscription to one who is not, and a ping for it",
        async () => {
          const eve = aUser("eve");
          using stream = await EventStream.open(app, watching(eve));
          await ping(app, { userid: eve, status: "1" });
          expect(await stream.presence()).toMatchObject({ userid: eve, status: "1" });
        },
      ],
      [
        "a WebSocket",
        async () => {
          using socket = await PresenceSocket.open(app);
          await socket.subscribe(ann);
          expect(await socket.presence()).toMatchObject({ userid: ann, status: "0" });
        },
      ],
      [
        "a snapshot",
        async () => {
          const shown = await snapshot(app, [ann, bob]);
          expect(shown).toMatchObject({ [ann]: { online: true }, [bob]: { online: true } });
        },
      ],
    ];
    for (const [what, step] of steps) {
      const { ms } = await timed(step);
      expect(ms, what).toBeLessThan(PROMPT_MS);
    }
    redis.thaw();
    await ping(app, { userid: ann, status: "7" });
    await eventually(
      "pings cross again",
      async () => (await far.presence()).status === "7",
      BACK_MS,
    );
  },
  TEST_MS,
);

test.concurrent(
  "a server that starts without Redis serves, and picks it up when it comes",
  async () => {
    await using redis = await RedisServer.start();
    await redis.kill();
    const { result, ms } = await timed(
      async () => await TestApp.start({ env: { REDIS_URL: redis.url } }),
    );
    await using app = result;
    expect(ms).toBeLessThan(10_000);
    await using other = await serverBeside(app);
    const ann = aUser("ann");
    using near = await EventStream.open(app, watching(ann));
    using far = await EventStream.open(other, watching(ann));
    await ping(app, { userid: ann, clientid: "phone", status: "0" });
    expect(await near.presence()).toMatchObject({ status: "0", online: true });
    expect(await readiness(app)).toMatchObject({ status: "degraded", redis: "down" });

    await redis.restart();
    await eventually(
      "Redis is used",
      async () => (await hears(app)) && (await hears(other)),
      BACK_MS,
    );
    await ping(app, { userid: ann, clientid: "phone", status: "1" });
    await eventually("it crosses", async () => (await far.presence()).status === "1");
  },
  TEST_MS,
);

describe.each(["killed", "frozen"] as const)("an outage longer than the TTL, Redis %s", (how) => {
  test.concurrent(
    "is no reason to call a user offline who pings another process",
    async () => {
      const ttlMs = 4000;
      await using pair = await aPair({ PRESENCE_TTL_S: String(ttlMs / 1000) });
      const { redis, app, other } = pair;
      const [ann, bob] = [aUser("ann"), aUser("bob")];
      using stream = await EventStream.open(app, watching(ann, bob));
      const device = { userid: ann, clientid: "phone", status: "0" };
      await using heartbeat = new Heartbeat(other, device, ttlMs / 8);
      await ping(other, { userid: bob, clientid: "phone", status: "0" });
      await eventually("bob is seen", () => last(stream, bob) === "online");
      if (how === "killed") await redis.kill();
      else redis.freeze();
      await Bun.sleep(ttlMs + 1500);
      expect(last(stream, ann)).toBe("online");
      if (how === "killed") await redis.restart();
      else redis.thaw();
      const isBobGone = () => last(stream, bob) === "offline";
      await eventually("bob, who stopped, is offline", isBobGone, BACK_MS);
      await Bun.sleep(1500);
      await eventually("she goes on pinging", () => heartbeat.pings > 8);
      expect(states(stream, ann)).not.toContain("offline");
      expect(await snapshot(app, [ann])).toMatchObject({ [ann]: { online: true } });
    },
    TEST_MS,
  );
});

/** What the stream has said of a user. */
function states({ events }: EventStream, userid: string): ("online" | "offline")[] {
  return events
    .filter(({ event }) => event === "message")
    .map(({ data }) => checked(PresenceEvent, JSON.parse(data)))
    .filter((event) => event.userid === userid)
    .map(({ online }) => (online ? "online" : "offline"));
}

function last(stream: EventStream, userid: string): "online" | "offline" | undefined {
  return states(stream, userid).at(-1);
}
