import { describe, expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { EventStream, type Presence } from "../support/event-stream.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { aUser, ping, watching } from "../support/presence.ts";
import { PresenceSocket } from "../support/presence-socket.ts";

const MINUTE_MS = 60_000;
// The server looks at the clock four times a second.
const TICK_MS = 350;

const clock = new FakeClock();
const app = TestApp.forTests({ clock });

/** The id of the event that a ping makes; the stream it was seen on is gone. */
async function seen(userid: string, status = "0"): Promise<string> {
  using stream = await EventStream.open(app, `/subscribe/${userid}`);
  await ping(app, { userid, clientid: "phone", status });
  for (;;) {
    const event = await stream.presence();
    if (event.time === clock.epochS && event.online) return event.id;
  }
}

const HOWS = {
  "the header": async (path: string, id: string) =>
    await EventStream.open(app, path, { "last-event-id": id }),
  "the query": async (path: string, id: string) =>
    await EventStream.open(
      app,
      `${path}${path.includes("?") ? "&" : "?"}lastEventId=${encodeURIComponent(id)}`,
    ),
};

describe.each(["the header", "the query"] as const)("a stream that resumes by %s", (how) => {
  const resume = HOWS[how];

  test("has one current event of a user that changed, however often it did", async () => {
    const userid = aUser();
    const id = await seen(userid);
    for (const status of ["1", "2", "brb"]) {
      clock.advance(1000);
      await ping(app, { userid, clientid: "phone", status });
    }
    using stream = await resume(`/subscribe/${userid}/client/phone`, id);
    expect(await stream.presence()).toMatchObject({
      time: clock.epochS,
      status: "brb",
      online: true,
    });
    await ping(app, { userid, clientid: "phone", status: "0" });
    expect(await stream.presence()).toMatchObject({ status: "0" });
  });

  test("has no event of a user that did not change", async () => {
    const userid = aUser();
    const id = await seen(userid);
    clock.advance(1000);
    using stream = await resume(`/subscribe/${userid}`, id);
    await ping(app, { userid, clientid: "phone", status: "1" });
    expect(await stream.presence()).toMatchObject({ status: "1" });
  });

  test("learns that a user went offline meanwhile", async () => {
    const userid = aUser();
    const id = await seen(userid);
    clock.advance(2 * MINUTE_MS);
    using stream = await resume(`/subscribe/${userid}`, id);
    expect(await stream.presence()).toMatchObject({ userid, online: false });
    await ping(app, { userid, clientid: "phone", status: "1" });
    expect(await stream.presence()).toMatchObject({ status: "1", online: true });
  });

  test("does not learn it twice", async () => {
    const userid = aUser();
    const id = await seen(userid);
    clock.advance(2 * MINUTE_MS);
    const first = await resume(`/subscribe/${userid}`, id);
    const offline = await first.presence();
    first[Symbol.dispose]();
    clock.advance(2 * MINUTE_MS);
    using second = await resume(`/subscribe/${userid}`, offline.id);
    await ping(app, { userid, clientid: "phone", status: "1" });
    expect(await second.presence()).toMatchObject({ status: "1", online: true });
  });

  test("has events of those alone that changed among many users", async () => {
    const users = Array.from({ length: 20 }, () => aUser());
    for (const userid of users) await ping(app, { userid, status: "0" });
    const first = await EventStream.open(app, watching(...users));
    let last: Presence | undefined;
    for (const _ of users) last = await first.presence();
    first[Symbol.dispose]();
    const changed = users.filter((_, index) => index % 7 === 3);
    for (const userid of changed) await ping(app, { userid, status: "1" });
    using stream = await resume(watching(...users), last?.id ?? "");
    const events = [];
    for (const _ of changed) events.push(await stream.presence());
    expect(new Set(events.map(({ userid }) => userid))).toEqual(new Set(changed));
    for (const event of events) expect(event.status).toBe("1");
    const [userid = ""] = users;
    await ping(app, { userid, status: "2" });
    expect(await stream.presence()).toMatchObject({ userid, status: "2" });
  });

  test("has a user that nobody had seen before", async () => {
    const [ann, bob] = [aUser("ann"), aUser("bob")];
    const id = await seen(ann);
    await ping(app, { userid: bob, status: "1" });
    using stream = await resume(watching(ann, bob), id);
    expect(await stream.presence()).toMatchObject({ userid: bob, status: "1" });
  });

  test.each([
    "x",
    "-",
    "1",
    "abc-def",
    "1e3-x",
    "NaN-1",
    "-1-abc",
    `${"9".repeat(30)}-abc`,
    "x".repeat(3000),
    "1760000000000-",
    "'; drop table presence; --",
  ])("is reset and has the present when its id is no id of ours: %p", async (id) => {
    const userid = aUser();
    await ping(app, { userid, status: "1" });
    using stream = await resume(`/subscribe/${userid}`, id);
    expect(await stream.event()).toMatchObject({ event: "reset", data: "{}" });
    expect(await stream.presence()).toMatchObject({ userid, status: "1", online: true });
    await ping(app, { userid, status: "2" });
    expect(await stream.presence()).toMatchObject({ userid, status: "2" });
  });
});

describe("ten minutes", () => {
  test("can be resumed, and no more", async () => {
    const ownClock = new FakeClock();
    const env = { PRESENCE_TTL_S: "86400" };
    await using own = await TestApp.start({ clock: ownClock, env });
    const [ann, bob] = [aUser("ann"), aUser("bob")];
    using first = await EventStream.open(own, watching(ann, bob));
    await ping(own, { userid: ann, status: "0" });
    const { id } = await first.presence();
    ownClock.advance(1000);
    await ping(own, { userid: bob, status: "0" });
    ownClock.advance(10 * MINUTE_MS - 2000);
    const headers = { "last-event-id": id };
    using inTime = await EventStream.open(own, watching(ann, bob), headers);
    expect(await inTime.presence()).toMatchObject({ userid: bob, online: true });
    ownClock.advance(3000);
    using late = await EventStream.open(own, watching(ann, bob), headers);
    expect(await late.event()).toMatchObject({ event: "reset", data: "{}" });
    const users = [await late.presence(), await late.presence()].map(({ userid }) => userid);
    expect(new Set(users)).toEqual(new Set([ann, bob]));
    expect(inTime.waiting).toBe(0);
  });

  test("later a user that went offline is told after the reset", async () => {
    const userid = aUser();
    const id = await seen(userid);
    clock.advance(30 * MINUTE_MS);
    await Bun.sleep(TICK_MS);
    using stream = await EventStream.open(app, `/subscribe/${userid}`, { "last-event-id": id });
    expect((await stream.event()).event).toBe("reset");
    expect(await stream.presence()).toMatchObject({ userid, online: false });
  });
});

test("an id of a clock that is ahead brings the present, and what follows", async () => {
  const userid = aUser();
  const id = await seen(userid);
  const ahead = id.replace(/^\d+/, String(clock.epochMs() + 60 * MINUTE_MS));
  await ping(app, { userid, clientid: "phone", status: "2" });
  using stream = await EventStream.open(app, `/subscribe/${userid}`, { "last-event-id": ahead });
  const first = await stream.event();
  if (first.event === "reset") expect(await stream.presence()).toMatchObject({ status: "2" });
  else expect(JSON.parse(first.data)).toMatchObject({ status: "2" });
  await ping(app, { userid, clientid: "phone", status: "1" });
  expect(await stream.presence()).toMatchObject({ status: "1" });
});

test("a wall clock that jumps back between two connections hides no change", async () => {
  const userid = aUser();
  const id = await seen(userid);
  clock.jump(-5 * MINUTE_MS);
  await ping(app, { userid, clientid: "phone", status: "2" });
  using stream = await EventStream.open(app, `/subscribe/${userid}`, { "last-event-id": id });
  let event = await stream.event();
  if (event.event === "reset") event = await stream.event();
  expect(JSON.parse(event.data)).toMatchObject({ status: "2", online: true });
  clock.jump(5 * MINUTE_MS);
});

test("a stranger's view resumes from an own view's id, and the other way round", async () => {
  const userid = aUser();
  const id = await seen(userid);
  await ping(app, { userid, clientid: "phone", status: "1" });
  const headers = { "x-user-claim": JSON.stringify({ userid }), "last-event-id": id };
  using own = await EventStream.open(app, `/subscribe/${userid}`, headers);
  expect(await own.presence()).toMatchObject({ status: "1" });
});

describe("a socket", () => {
  test("resumes with its first subscription, and with no other", async () => {
    const [ann, bob, eve] = [aUser("ann"), aUser("bob"), aUser("eve")];
    await ping(app, { userid: eve, status: "0" });
    const id = await seen(ann);
    await ping(app, { userid: bob, status: "1" });
    using socket = await PresenceSocket.open(app, { query: `lastEventId=${id}` });
    socket.send({ type: "subscribe", users: [ann, bob] });
    expect(await socket.presence()).toMatchObject({ userid: bob, status: "1" });
    socket.send({ type: "subscribe", users: [eve] });
    expect(await socket.presence()).toMatchObject({ userid: eve, status: "0" });
  });

  test("is reset before the present when its id is of no use", async () => {
    const userid = aUser();
    const id = await seen(userid);
    clock.advance(11 * MINUTE_MS);
    await Bun.sleep(TICK_MS);
    for (const lastEventId of [id, "nonsense"]) {
      using socket = await PresenceSocket.open(app, { query: `lastEventId=${lastEventId}` });
      socket.send({ type: "subscribe", users: [userid] });
      expect(await socket.frame()).toEqual({ type: "reset" });
      expect(await socket.presence()).toMatchObject({ userid, online: false });
    }
  });

  test("has ids that a stream resumes from", async () => {
    const userid = aUser();
    using socket = await PresenceSocket.open(app);
    await socket.subscribe(userid);
    await ping(app, { userid, status: "0" });
    const { id } = await socket.presence();
    const headers = { "last-event-id": id };
    using quiet = await EventStream.open(app, `/subscribe/${userid}`, headers);
    await ping(app, { userid, status: "1" });
    using missed = await EventStream.open(app, `/subscribe/${userid}`, headers);
    for (const stream of [quiet, missed])
      expect(await stream.presence()).toMatchObject({ status: "1" });
  });
});
