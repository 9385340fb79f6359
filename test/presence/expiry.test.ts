import { describe, expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { EventStream } from "../support/event-stream.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { aUser, ping, snapshot, watching } from "../support/presence.ts";
import { WatchedUser } from "../support/watched-user.ts";

const clock = new FakeClock();
const app = TestApp.forTests({ clock });

describe("expiry", () => {
  test("of one device leaves the status of the others", async () => {
    const userid = aUser();
    using user = await WatchedUser.open(app, userid);
    await ping(app, { userid, clientid: "phone", status: "0" });
    await user.stream.presence();
    clock.advance(30_000);
    await ping(app, { userid, clientid: "desk", status: "1" });
    const time = clock.epochS;
    expect((await user.stream.presence()).status).toBe("0");
    clock.advance(29_000);
    await user.quietAfterTick();
    clock.advance(2000);
    expect(await user.stream.presence()).toMatchObject({
      time,
      status: "1",
      online: true,
      clientid: "phone",
    });
    expect(await snapshot(app, [userid])).toEqual({
      [userid]: { time, status: "1", online: true },
    });
  });

  test("of a device that changes nothing is no news of another time", async () => {
    const userid = aUser();
    using user = await WatchedUser.open(app, userid);
    await ping(app, { userid, clientid: "phone", status: "1" });
    await user.stream.presence();
    clock.advance(30_000);
    await ping(app, { userid, clientid: "desk", status: "0" });
    const time = clock.epochS;
    await user.stream.presence();
    clock.advance(31_000);
    await Bun.sleep(350);
    await ping(app, { userid, clientid: "desk", status: "0" });
    for (let event = await user.stream.presence(); event.time !== clock.epochS;) {
      expect(event).toMatchObject({ time, status: "0", online: true });
      event = await user.stream.presence();
    }
  });

  test("of the last device is one event that says offline, within the TTL and a second", async () => {
    const userid = aUser();
    using user = await WatchedUser.open(app, userid);
    await ping(app, { userid, clientid: "phone", status: "2" });
    const time = clock.epochS;
    await user.stream.presence();
    clock.advance(59_000);
    await user.quietAfterTick();
    expect(await snapshot(app, [userid])).toMatchObject({ [userid]: { online: true } });
    clock.advance(2000);
    expect(await user.stream.presence()).toMatchObject({
      userid,
      time,
      online: false,
      clientid: "phone",
    });
    clock.advance(61_000);
    await user.quietAfterTick();
    expect(await snapshot(app, [userid])).toMatchObject({ [userid]: { time, online: false } });
  });

  test("is told to who comes later, too, and ends with the next ping", async () => {
    const userid = aUser();
    await ping(app, { userid, clientid: "phone", status: "2" });
    const time = clock.epochS;
    clock.advance(61_000);
    using stream = await EventStream.open(app, `/subscribe/${userid}`);
    expect(await stream.presence()).toMatchObject({ userid, time, online: false });
    await ping(app, { userid, clientid: "phone", status: "1" });
    expect(await stream.presence()).toMatchObject({
      time: clock.epochS,
      status: "1",
      online: true,
    });
  });

  test("is put off by every ping", async () => {
    const userid = aUser();
    using user = await WatchedUser.open(app, userid);
    for (let minute = 0; minute < 2; minute++) {
      await ping(app, { userid, status: "0" });
      expect((await user.stream.presence()).online).toBe(true);
      clock.advance(55_000);
      await user.quietAfterTick();
    }
  });

  test("of all of many users is told for each", async () => {
    const users = Array.from({ length: 50 }, () => aUser());
    using stream = await EventStream.open(app, watching(...users));
    for (const userid of users) {
      await ping(app, { userid, status: "0" });
      await stream.presence();
    }
    clock.advance(61_000);
    const offline = new Set<string>();
    for (const _ of users) {
      const { userid, online } = await stream.presence();
      expect(online).toBe(false);
      offline.add(userid);
    }
    expect(offline).toEqual(new Set(users));
  });

  test("comes when PRESENCE_TTL_S says", async () => {
    const ownClock = new FakeClock();
    await using own = await TestApp.start({ clock: ownClock, env: { PRESENCE_TTL_S: "5" } });
    const userid = aUser();
    await ping(own, { userid, status: "0" });
    using stream = await EventStream.open(own, `/subscribe/${userid}`);
    expect((await stream.presence()).online).toBe(true);
    ownClock.advance(4000);
    await Bun.sleep(350);
    expect(stream.waiting).toBe(0);
    ownClock.advance(2000);
    expect((await stream.presence()).online).toBe(false);
  });
});

describe("a wall clock that jumps", () => {
  test.each([
    ["back", -3_600_000],
    ["ahead and back", 3_600_000],
  ])("%s does not move a user's time backwards", async (_how, ms) => {
    const userid = aUser();
    using stream = await EventStream.open(app, `/subscribe/${userid}`);
    let time = 0;
    let ids = new Set<string>();
    for (const by of [0, ms, 1000, -ms, 1000]) {
      // Ahead only by the wall clock: the device has not been silent for an hour.
      clock.jump(by);
      await ping(app, { userid, status: "0" });
      const event = await stream.presence();
      expect(event).toMatchObject({ status: "0", online: true });
      expect(event.time).toBeGreaterThanOrEqual(time);
      ({ time } = event);
      ids.add(event.id);
      const { [userid]: state } = await snapshot(app, [userid]);
      expect(state).toEqual({ time, status: "0", online: true });
    }
    expect(ids.size).toBe(5);
    clock.jump(-2000);
  });

  test("ahead and back gives nobody else a time that is not the server's", async () => {
    const ownClock = new FakeClock();
    await using own = await TestApp.start({ clock: ownClock });
    const [ann, bob] = [aUser("ann"), aUser("bob")];
    ownClock.jump(3_600_000);
    await ping(own, { userid: ann, status: "0" });
    ownClock.jump(-3_600_000);
    await ping(own, { userid: bob, status: "0" });
    expect(await snapshot(own, [bob])).toMatchObject({ [bob]: { time: ownClock.epochS } });
  });

  test("back hides no status, also of a user whom nobody watches", async () => {
    const [userid, other] = [aUser(), aUser()];
    await ping(app, { userid, status: "0" });
    // Long enough ago that it is no longer among what was just heard.
    for (let minute = 0; minute < 3; minute++) {
      clock.advance(20_000);
      await ping(app, { userid: other, status: "0" });
    }
    clock.jump(-3_600_000);
    await ping(app, { userid, status: "2" });
    expect(await snapshot(app, [userid])).toMatchObject({
      [userid]: { status: "2", online: true },
    });
    clock.jump(3_600_000);
  });

  test.each([
    ["back", -3_600_000],
    ["ahead", 3_600_000],
  ])("%s neither ends nor prolongs the life of a device", async (_how, ms) => {
    const userid = aUser();
    using user = await WatchedUser.open(app, userid);
    await ping(app, { userid, status: "0" });
    await user.stream.presence();
    clock.jump(ms);
    await user.quietAfterTick();
    clock.advance(61_000);
    expect(await user.stream.presence()).toMatchObject({ userid, online: false });
    clock.jump(-ms);
  });
});
