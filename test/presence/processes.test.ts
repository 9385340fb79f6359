import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { rmSync } from "node:fs";

import { Type } from "typebox";

import { openDatabase } from "../../src/platform/database/database.ts";
import { testEnv } from "../support/app.ts";
import { EventStream } from "../support/event-stream.ts";
import { eventually, undelayedMs } from "../support/eventually.ts";
import { Heartbeat } from "../support/heartbeat.ts";
import { freshDatabase } from "../support/postgres.ts";
import { PresenceSocket } from "../support/presence-socket.ts";
import {
  type PresenceEvent,
  type Target,
  aUser,
  areWritten,
  checked,
  claim,
  ping,
  snapshot,
  watching,
} from "../support/presence.ts";
import { redisEnv } from "../support/redis-server.ts";
import { untilBusIsUp } from "../support/bus-up.ts";
import { ServerProcess } from "../support/server-process.ts";

const TEST_MS = 60_000;
const TTL_MS = 2000;
// A second after the TTL, and what a busy machine adds.
const OFFLINE_MS_MAX = TTL_MS + 1000 + 500;
// Processes may order changes differently within this time.
const OVERLAP_MS = 2000 + 300;
const RESUME_MS_MAX = 10 * 60_000;

describe.each(["redis", "postgres"] as const)("two processes over %s", (bus) => {
  const folders: string[] = [];
  let env: Record<string, string>;
  let one: ServerProcess;
  let other: ServerProcess;

  beforeAll(async () => {
    env = await freshEnv();
    [one, other] = await Promise.all([ServerProcess.start(env), ServerProcess.start(env)]);
    await Promise.all([one, other].map(async ({ url }) => await untilBusIsUp(url)));
  });

  afterAll(async () => {
    await Promise.all([one.kill(), other.kill()]);
    for (const folder of folders) rmSync(folder, { recursive: true, force: true });
  });

  async function freshEnv(): Promise<Record<string, string>> {
    const fresh = await testEnv("files", await freshDatabase());
    folders.push(fresh["DATA_DIR"] ?? "");
    const ttl = { PRESENCE_TTL_S: String(TTL_MS / 1000) };
    return { ...fresh, ...ttl, ...(bus === "redis" && (await redisEnv())) };
  }

  test.concurrent("a ping reaches subscribers on the other process", async () => {
    const ann = aUser("ann");
    using stream = await EventStream.open(other, watching(ann));
    using socket = await PresenceSocket.open(other);
    await socket.subscribe(ann);
    await ping(one, { userid: ann, clientid: "phone", status: "2" });
    const event = await stream.presence();
    const seen = { userid: ann, clientid: "phone", status: "2", online: true };
    expect(event).toMatchObject(seen);
    expect(await socket.presence()).toEqual({ type: "presence", ...event });
  });

  test.concurrent("a ping on a WebSocket reaches subscribers on the other process", async () => {
    const ann = aUser("ann");
    using stream = await EventStream.open(other, watching(ann));
    using socket = await PresenceSocket.open(one, { headers: claim(ann, "tablet") });
    socket.send({ type: "ping", status: "1" });
    const seen = { clientid: "tablet", status: "1", online: true };
    expect(await stream.presence()).toMatchObject(seen);
  });

  test.concurrent("a subscriber on the other process gets the last ping at once", async () => {
    const ann = aUser("ann");
    await ping(one, { userid: ann, clientid: "phone", status: "1" });
    await eventually("the snapshot shows it", async () => (await ofUser(other, ann)).online);
    using stream = await EventStream.open(other, watching(ann));
    expect(await stream.presence()).toMatchObject({ userid: ann, status: "1", online: true });
  });

  test.concurrent("the snapshot of the other process has the device of highest priority", async () => {
    const ann = aUser("ann");
    await ping(one, { userid: ann, clientid: "phone", status: "2" });
    await ping(other, { userid: ann, clientid: "laptop", status: "1" });
    for (const process of [one, other])
      await eventually("it does not disturb", async () => {
        const { online, status } = await ofUser(process, ann);
        return online && status === "2";
      });
  });

  test.concurrent("an invisible user looks offline on the other process, and no further times leak", async () => {
    const ann = aUser("ann");
    using stream = await EventStream.open(other, watching(ann));
    await ping(one, { userid: ann, clientid: "phone", status: "0" });
    const { time } = await stream.presence();
    await ping(one, { userid: ann, clientid: "phone", status: "3" });
    expect(await stream.presence()).toMatchObject({ online: false, status: "0", time });
    await ping(one, { userid: ann, clientid: "phone", status: "3" });
    expect(await ofUser(other, ann)).toEqual({ time, status: "0", online: false });
    await ping(one, { userid: ann, clientid: "phone", status: "1" });
    expect(await stream.presence()).toMatchObject({ online: true, status: "1" });
  });

  test.concurrent("a bye is seen on the other process at once", async () => {
    const ann = aUser("ann");
    using stream = await EventStream.open(other, watching(ann));
    using socket = await PresenceSocket.open(one, { headers: claim(ann, "phone") });
    socket.send({ type: "ping", status: "0" });
    expect(await stream.presence()).toMatchObject({ online: true });
    const saidMs = undelayedMs();
    socket.send({ type: "bye" });
    expect(await stream.presence()).toMatchObject({ userid: ann, online: false });
    expect(undelayedMs() - saidMs).toBeLessThan(TTL_MS / 2);
  });

  test.concurrent("a bye on one process leaves the device on the other alone", async () => {
    const ann = aUser("ann");
    using stream = await EventStream.open(one, watching(ann));
    using socket = await PresenceSocket.open(one, { headers: claim(ann, "phone") });
    await ping(other, { userid: ann, clientid: "laptop", status: "1" });
    expect(await stream.presence()).toMatchObject({ online: true, status: "1" });
    socket.send({ type: "ping", status: "0" });
    expect(await stream.presence()).toMatchObject({ online: true, status: "0" });
    socket.send({ type: "bye" });
    expect(await stream.presence()).toMatchObject({ online: true, status: "1" });
  });

  test.concurrent(
    "the end of the TTL is seen on both processes, and not before",
    async () => {
      const ann = aUser("ann");
      using near = await EventStream.open(one, watching(ann));
      using far = await EventStream.open(other, watching(ann));
      const pinged = startClocks();
      await ping(one, { userid: ann, clientid: "phone", status: "0" });
      const waits = [near, far].map(async (stream) => {
        expect(await stream.presence()).toMatchObject({ online: true });
        const event = await stream.presence();
        expect(event).toMatchObject({ userid: ann, online: false, status: "0" });
        return pinged();
      });
      for (const waited of await Promise.all(waits)) expectTtl(waited);
      expect(await ofUser(other, ann)).toMatchObject({ status: "0", online: false });
    },
    TEST_MS,
  );

  test.concurrent(
    "the users of a killed process go offline elsewhere; one with a device on a living process does not",
    async () => {
      const killed = await ServerProcess.start(env);
      const [ann, bob] = [aUser("ann"), aUser("bob")];
      using stream = await EventStream.open(other, watching(ann, bob));
      const laptop = { userid: ann, clientid: "laptop", status: "1" };
      await using heartbeat = new Heartbeat(one, laptop, TTL_MS / 4);
      await ping(killed, { userid: ann, clientid: "phone", status: "0" });
      const pinged = startClocks();
      await ping(killed, { userid: bob, clientid: "phone", status: "0" });
      await presenceWhere(stream, ({ userid, clientid }) => userid === ann && clientid === "phone");
      await presenceWhere(stream, ({ userid, online }) => userid === bob && online);
      await killed.kill();
      await presenceWhere(stream, ({ userid, online }) => userid === bob && !online);
      expectTtl(pinged());
      // Her phone is gone by now, too.
      await presenceWhere(stream, ({ userid, status }) => userid === ann && status === "1");
      const ofAnn = stream.events.filter(({ data }) => data.includes(ann));
      expect(ofAnn.filter(({ data }) => data.includes('"online":false'))).toEqual([]);
      expect(heartbeat.pings).toBeGreaterThan(4);
      expect(await ofUser(other, ann)).toMatchObject({ status: "1", online: true });
      expect(await ofUser(one, bob)).toMatchObject({ status: "0", online: false });
    },
    TEST_MS,
  );

  test.concurrent(
    "an id of one process brings what changed meanwhile, and only that, on the other",
    async () => {
      const [ann, bob] = [aUser("ann"), aUser("bob")];
      const path = watching(ann, bob);
      const before = await EventStream.open(one, path);
      await ping(one, { userid: bob, status: "2" });
      await presenceWhere(before, ({ userid, online }) => userid === bob && !online);
      // What is younger may come again from another process.
      await Bun.sleep(OVERLAP_MS);
      await ping(one, { userid: ann, status: "0" });
      const { id } = await before.presence();
      before[Symbol.dispose]();
      await ping(one, { userid: ann, status: "1" });
      await eventually("it is known", async () => (await ofUser(other, ann)).status === "1");

      using stream = await EventStream.open(other, path, { "last-event-id": id });
      expect(await stream.presence()).toMatchObject({ userid: ann, status: "1", online: true });
      await ping(one, { userid: bob, status: "0" });
      expect(await stream.presence()).toMatchObject({ userid: bob, status: "0", online: true });
    },
    TEST_MS,
  );

  test.concurrent("an id that is too old or no id at all brings a reset and then the state", async () => {
    const ann = aUser("ann");
    await ping(one, { userid: ann, status: "1" });
    await eventually("it is known", async () => (await ofUser(other, ann)).online);
    using first = await EventStream.open(one, watching(ann));
    const { id } = await first.presence();
    const old = id.replace(/^\d+/, (ms) => String(Number(ms) - RESUME_MS_MAX - 1000));
    expect(old).not.toBe(id);
    for (const unusable of [old, "garbage"]) {
      using stream = await EventStream.open(other, watching(ann), { "last-event-id": unusable });
      expect(await stream.event()).toMatchObject({ event: "reset", data: "{}" });
      expect(await stream.presence()).toMatchObject({ userid: ann, status: "1", online: true });
    }
  });

  test.concurrent(
    "last-seen survives the end of all processes and of what the bus kept",
    async () => {
      const own = await freshEnv();
      const sql = openDatabase(own["DATABASE_URL"] ?? "", { connections: 1 });
      const [ann, hidden] = [aUser("ann"), aUser("hidden")];
      const before = await ServerProcess.start(own);
      await ping(before, { userid: ann, clientid: "phone", status: "1" });
      await ping(before, { userid: hidden, clientid: "phone", status: "3" });
      const { time } = await ofUser(before, ann);
      await areWritten(sql, [ann, hidden]);
      await sql.end();
      await before.kill();

      const forgetful = bus === "redis" ? await redisEnv() : {};
      await using after = await ServerProcess.start({ ...own, ...forgetful });
      await eventually("the TTL is over", async () => !(await ofUser(after, ann)).online);
      expect(await snapshot(after, [ann, hidden])).toEqual({
        [ann]: { time, status: "1", online: false },
        [hidden]: { time: null, status: null, online: false },
      });
      using stream = await EventStream.open(after, watching(ann));
      expect(await stream.presence()).toMatchObject({ time, status: "1", online: false });
    },
    TEST_MS,
  );
});

const Shown = Type.Object({
  time: Type.Union([Type.Integer(), Type.Null()]),
  status: Type.Union([Type.String(), Type.Null()]),
  online: Type.Boolean(),
});

async function ofUser(target: Target, userid: string): Promise<Type.Static<typeof Shown>> {
  return checked(Shown, (await snapshot(target, [userid]))[userid]);
}

/** Takes events until one is what the test waits for. */
async function presenceWhere(
  stream: EventStream,
  holds: (event: PresenceEvent) => boolean,
): Promise<PresenceEvent> {
  for (;;) {
    const event = await stream.presence();
    if (holds(event)) return event;
  }
}

type Waited = { ms: number; wallMs: number };

function startClocks(): () => Waited {
  const [startedMs, startedWallMs] = [undelayedMs(), performance.now()];
  return () => ({ ms: undelayedMs() - startedMs, wallMs: performance.now() - startedWallMs });
}

function expectTtl({ ms, wallMs }: Waited): void {
  expect(wallMs).toBeGreaterThanOrEqual(TTL_MS);
  expect(ms).toBeLessThan(OFFLINE_MS_MAX);
}
