import { expect, test } from "bun:test";

import { metric } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { EventStream } from "../support/event-stream.ts";
import { eventually, undelayedMs } from "../support/eventually.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { type Ping, aUser, checked, fat, flood, ping, watching } from "../support/presence.ts";
import { PresenceFrame } from "../support/presence.ts";
import { PresenceSocket } from "../support/presence-socket.ts";
import { RawSocket } from "../support/raw-socket.ts";

// On loopback up to 6 MiB fit between a server and a client that does not read.
const FLOOD = 6000;
const EACH = 500;
const USERS = 200;
const EACH_MARK = "one of each ";
const LAST = "the last";
const CLIENT = fat(128);

const clock = new FakeClock();
const app = TestApp.forTests({ clock });

async function dropped(reason: "slow" | "stalled"): Promise<number> {
  return await metric(app, `floodgate_presence_dropped_total{reason="${reason}"}`);
}

async function connections(): Promise<[sse: number, websocket: number]> {
  const series = "floodgate_presence_connections";
  return [
    await metric(app, `${series}{transport="sse"}`),
    await metric(app, `${series}{transport="websocket"}`),
  ];
}

/** A stream and a socket that have begun to watch the users, and read no more. */
async function stalled(...users: string[]) {
  const stream = await EventStream.open(app, watching(...users));
  const socket = await RawSocket.open(app);
  const [first = ""] = users;
  socket.send({ type: "subscribe", users });
  await ping(app, { userid: first, clientid: CLIENT, status: "first" });
  await eventually("a frame", () => socket.frames.length > 0);
  await stream.presence();
  for (const client of [stream, socket]) client.pause();
  return {
    stream,
    socket,
    resume: () => {
      for (const client of [stream, socket]) client.resume();
    },
    [Symbol.dispose]: () => {
      for (const client of [stream, socket]) client[Symbol.dispose]();
    },
  };
}

function fatPing(userid: string, count: number): Ping {
  return { userid, clientid: CLIENT, status: String(count).padStart(64, fat(64)) };
}

function* pingsOf(users: string[], count: number): Generator<Ping> {
  for (let sent = 0; sent < count; sent++) yield fatPing(users[sent % users.length] ?? "", sent);
}

function textOf(frame: unknown): string {
  return JSON.stringify(frame);
}

function fatUser(): string {
  return aUser().padEnd(128, fat(128));
}

test("who stops reading delays nobody, costs a bounded amount and has the present in the end", async () => {
  const userid = fatUser();
  using clients = await stalled(userid);
  using stream = await EventStream.open(app, watching(userid));
  using socket = await PresenceSocket.open(app);
  await socket.subscribe(userid);
  const [first] = [await stream.presence(), await socket.presence()];
  expect(first.status).toBe("first");
  await flood(app, pingsOf([userid], FLOOD));

  // While the stalled ones are full to the brim, others get every event of every ping, and at once.
  await ping(app, { userid, clientid: CLIENT, status: "marker" });
  while ((await stream.presence()).status !== "marker");
  while ((await socket.presence()).status !== "marker");
  const tookMs = [];
  for (let sent = 0; sent < EACH; sent++) {
    const startedMs = undelayedMs();
    await ping(app, { ...fatPing(userid, sent), status: `${EACH_MARK}${sent}` });
    tookMs.push(undelayedMs() - startedMs);
    const { status } = await stream.presence();
    expect(status).toBe(`${EACH_MARK}${sent}`);
    expect((await socket.presence()).status).toBe(status);
  }
  const p99 = tookMs.toSorted((a, b) => a - b)[Math.floor(EACH * 0.99)];
  expect(p99).toBeLessThan(50);

  await ping(app, { userid, clientid: CLIENT, status: LAST });
  clients.resume();
  const { stream: slowStream, socket: slowSocket } = clients;
  await eventually("the last event", () => slowStream.events.at(-1)?.data.includes(LAST) === true);
  await eventually("the last frame", () => {
    const frame = slowSocket.frames.at(-1);
    return checked(PresenceFrame, frame).status === LAST;
  });
  // What came when they were full was replaced by what came after it, not kept.
  const kept = [...slowStream.events.map(({ data }) => data), ...slowSocket.frames.map(textOf)];
  expect(kept.length).toBeLessThan(2 * FLOOD);
  expect(kept.filter((text) => text.includes(EACH_MARK))).toEqual([]);
  await ping(app, { userid, clientid: CLIENT, status: "goes on" });
  await eventually(
    "an event more",
    () => slowStream.events.at(-1)?.data.includes("goes on") === true,
  );
});

test("who stops reading for a minute is dropped: a socket with 1013, a stream by its end", async () => {
  const userid = fatUser();
  using clients = await stalled(userid);
  using quiet = await EventStream.open(app, watching(aUser()));
  await flood(app, pingsOf([userid], FLOOD));
  const before = await dropped("stalled");
  clock.advance(30_000);
  await Bun.sleep(350);
  expect(await dropped("stalled")).toBe(before);
  expect(await connections()).toEqual([2, 1]);
  // All connections are looked after within 25 seconds.
  clock.advance(56_000);
  // Who has nothing to read is not slow.
  await eventually("one stream is left", async () => (await connections()).join() === "1,0", 3000);
  expect(quiet.waiting).toBe(0);
  clients.resume();
  expect(await clients.stream.ended).toBe("end of stream");
  await clients.socket.closed;
  expect(clients.socket.closeCode).toBe(1013);
  expect(await dropped("stalled")).toBe(before + 2);
});

test("who has over 64 KiB to read of many users is dropped without a wait", async () => {
  const users = Array.from({ length: USERS }, () => aUser().padEnd(40, "u"));
  using clients = await stalled(...users);
  using healthy = await EventStream.open(app, watching(...users));
  await healthy.presence();
  const before = await dropped("slow");
  let rounds = 0;
  while ((await connections()).join() !== "1,0") {
    if (++rounds > 60) throw new Error("nobody was dropped");
    await flood(app, pingsOf(users, USERS));
    for (let event = 0; event < USERS; event++) await healthy.presence();
  }
  clients.resume();
  expect(await clients.stream.ended).toBe("end of stream");
  await clients.socket.closed;
  expect(clients.socket.closeCode).toBe(1013);
  expect(await dropped("slow")).toBe(before + 2);
});
