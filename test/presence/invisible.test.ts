import { describe, expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { EventStream } from "../support/event-stream.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { aUser, bearerOf, claim, mint, ping, snapshot } from "../support/presence.ts";
import { PresenceSocket } from "../support/presence-socket.ts";
import { WatchedUser } from "../support/watched-user.ts";

const INVISIBLE = "3";
const NEVER_SEEN = { time: null, status: null, online: false };

const clock = new FakeClock();
const app = TestApp.forTests({ clock });

describe("to others an invisible user", () => {
  test("goes offline like any other, with the time of its last visible ping", async () => {
    const userid = aUser();
    using other = await WatchedUser.open(app, userid);
    await ping(app, { userid, clientid: "phone", status: "0" });
    const seen = await other.stream.presence();
    clock.advance(10_000);
    await ping(app, { userid, clientid: "phone", status: INVISIBLE });
    const gone = await other.stream.presence();
    expect(gone).toMatchObject({ userid, time: seen.time, online: false });
    expect(gone.status).not.toBe(INVISIBLE);
    expect(await snapshot(app, [userid])).toEqual({
      [userid]: { time: seen.time, status: gone.status, online: false },
    });
  });

  test("looks as one whose device has expired", async () => {
    const [hidden, expired] = [aUser(), aUser()];
    for (const userid of [hidden, expired])
      await ping(app, { userid, clientid: "phone", status: "2" });
    clock.advance(30_000);
    await ping(app, { userid: hidden, clientid: "phone", status: INVISIBLE });
    clock.advance(31_000);
    const states = await snapshot(app, [hidden, expired]);
    expect(states[hidden]).toEqual(states[expired]);
    using first = await EventStream.open(app, `/subscribe/${hidden}`);
    using second = await EventStream.open(app, `/subscribe/${expired}`);
    const { id: _hiddenId, userid: _hiddenUser, ...asHidden } = await first.presence();
    const { id: _expiredId, userid: _expiredUser, ...asExpired } = await second.presence();
    expect(asHidden).toEqual(asExpired);
  });

  test("does not show when it pings, expires or says bye", async () => {
    const userid = aUser();
    using other = await WatchedUser.open(app, userid);
    await ping(app, { userid, clientid: "phone", status: "0" });
    const seen = await other.stream.presence();
    await ping(app, { userid, clientid: "phone", status: INVISIBLE });
    expect((await other.stream.presence()).online).toBe(false);
    for (let minute = 0; minute < 3; minute++) {
      clock.advance(40_000);
      await ping(app, { userid, clientid: "phone", ...(minute > 0 && { status: INVISIBLE }) });
      await other.quiet();
    }
    expect(await snapshot(app, [userid])).toMatchObject({
      [userid]: { time: seen.time, online: false },
    });
    clock.advance(61_000);
    await other.quietAfterTick();
    await ping(app, { userid, clientid: "phone", status: INVISIBLE });
    using device = await PresenceSocket.open(app, { headers: claim(userid, "phone") });
    device.send({ type: "bye" });
    await device.settled();
    await other.quiet();
  });

  test("who was never visible was never seen", async () => {
    const userid = aUser();
    using before = await WatchedUser.open(app, userid);
    await ping(app, { userid, clientid: "phone", status: INVISIBLE });
    await before.quiet();
    using after = await WatchedUser.open(app, userid);
    await after.quiet();
    expect(await snapshot(app, [userid])).toEqual({ [userid]: NEVER_SEEN });
    clock.advance(61_000);
    await before.quietAfterTick();
    expect(await snapshot(app, [userid])).toEqual({ [userid]: NEVER_SEEN });
  });

  test("is online again with its next visible ping", async () => {
    const userid = aUser();
    using other = await WatchedUser.open(app, userid);
    await ping(app, { userid, clientid: "phone", status: INVISIBLE });
    clock.advance(5000);
    await ping(app, { userid, clientid: "phone", status: "1" });
    expect(await other.stream.presence()).toMatchObject({
      userid,
      time: clock.epochS,
      status: "1",
      online: true,
    });
  });

  test("shows its visible devices alone", async () => {
    const userid = aUser();
    using other = await WatchedUser.open(app, userid);
    await ping(app, { userid, clientid: "phone", status: "1" });
    const time = clock.epochS;
    await other.stream.presence();
    clock.advance(10_000);
    await ping(app, { userid, clientid: "desk", status: INVISIBLE });
    await other.quiet();
    expect(await snapshot(app, [userid])).toEqual({
      [userid]: { time, status: "1", online: true },
    });
    clock.advance(40_000);
    await ping(app, { userid, clientid: "desk", status: INVISIBLE });
    await other.quiet();
    clock.advance(11_000);
    expect(await other.stream.presence()).toMatchObject({ time, online: false });
    await other.quiet();
  });

  test("does not show which of its hidden devices expired with the others", async () => {
    const userid = aUser();
    using other = await WatchedUser.open(app, userid);
    await ping(app, { userid, clientid: "phone", status: "1" });
    await other.stream.presence();
    clock.advance(100);
    await ping(app, { userid, clientid: "hidden", status: INVISIBLE });
    clock.advance(61_000);
    expect(await other.stream.presence()).toMatchObject({ online: false, clientid: "phone" });
  });

  test("does not show which of its hidden devices pings when the others have just expired", async () => {
    const userid = aUser();
    using other = await WatchedUser.open(app, userid);
    await ping(app, { userid, clientid: "phone", status: "1" });
    const { time } = await other.stream.presence();
    await ping(app, { userid, clientid: "hidden", status: INVISIBLE });
    clock.advance(61_000);
    await ping(app, { userid, clientid: "hidden", status: INVISIBLE });
    expect(await other.stream.presence()).toMatchObject({
      time,
      online: false,
      clientid: "phone",
    });
  });

  test("shows the others when the one that counted hides", async () => {
    const userid = aUser();
    using other = await WatchedUser.open(app, userid);
    for (const [clientid, status] of [
      ["phone", "0"],
      ["desk", "1"],
    ] as const) {
      await ping(app, { userid, clientid, status });
      expect((await other.stream.presence()).status).toBe("0");
    }
    const time = clock.epochS;
    clock.advance(5000);
    await ping(app, { userid, clientid: "phone", status: INVISIBLE });
    expect(await other.stream.presence()).toMatchObject({ time, status: "1", online: true });
  });
});

describe("its own devices see an invisible user", () => {
  test("on a stream by claim, and by token", async () => {
    const userid = aUser();
    const { token } = await mint(app, { userid, clientid: "desk" });
    const path = `/subscribe/${userid}/client/desk`;
    using byClaim = await EventStream.open(app, path, claim(userid, "desk"));
    using byHeader = await EventStream.open(app, path, bearerOf(token));
    using byQuery = await EventStream.open(app, `${path}?token=${token}`);
    using other = await WatchedUser.open(app, userid);
    for (const status of [INVISIBLE, "0", INVISIBLE]) {
      clock.advance(1000);
      await ping(app, { userid, clientid: "phone", status });
      for (const own of [byClaim, byHeader, byQuery])
        expect(await own.presence()).toMatchObject({
          time: clock.epochS,
          status,
          online: true,
          clientid: "phone",
        });
    }
    expect((await other.stream.presence()).online).toBe(true);
    expect((await other.stream.presence()).online).toBe(false);
    clock.advance(61_000);
    for (const own of [byClaim, byHeader, byQuery])
      expect(await own.presence()).toMatchObject({ online: false });
    await other.quiet();
  });

  test("at once when they come later", async () => {
    const userid = aUser();
    await ping(app, { userid, clientid: "phone", status: INVISIBLE });
    const expected = { time: clock.epochS, status: INVISIBLE, online: true };
    using own = await EventStream.open(app, `/subscribe/${userid}`, claim(userid, "desk"));
    expect(await own.presence()).toMatchObject(expected);
    expect(await snapshot(app, [userid], claim(userid))).toEqual({ [userid]: expected });
    const { token } = await mint(app, { userid });
    expect(await snapshot(app, [userid], bearerOf(token))).toEqual({ [userid]: expected });
    expect(await snapshot(app, [userid], claim(aUser()))).toEqual({ [userid]: NEVER_SEEN });
  });

  test("on a socket, and nothing more of others", async () => {
    const [ann, bob] = [aUser("ann"), aUser("bob")];
    const { token } = await mint(app, { userid: ann, clientid: "desk" });
    using byClaim = await PresenceSocket.open(app, { headers: claim(ann, "desk") });
    using byToken = await PresenceSocket.open(app, { query: `token=${token}` });
    for (const socket of [byClaim, byToken]) await socket.subscribe(ann, bob);
    await ping(app, { userid: bob, clientid: "phone", status: INVISIBLE });
    await ping(app, { userid: ann, clientid: "phone", status: INVISIBLE });
    for (const socket of [byClaim, byToken])
      expect(await socket.presence()).toMatchObject({ userid: ann, status: INVISIBLE });
  });

  test("with priority below every other device", async () => {
    const userid = aUser();
    using own = await EventStream.open(app, `/subscribe/${userid}`, claim(userid));
    await ping(app, { userid, clientid: "phone", status: "lunch" });
    expect((await own.presence()).status).toBe("lunch");
    await ping(app, { userid, clientid: "desk", status: INVISIBLE });
    expect(await own.presence()).toMatchObject({ status: "lunch", clientid: "desk" });
  });

  test("also when they resume", async () => {
    const userid = aUser();
    const first = await EventStream.open(app, `/subscribe/${userid}`, claim(userid));
    await ping(app, { userid, clientid: "phone", status: "0" });
    const { id } = await first.presence();
    first[Symbol.dispose]();
    await ping(app, { userid, clientid: "phone", status: INVISIBLE });
    const resume = { "last-event-id": id };
    using own = await EventStream.open(app, `/subscribe/${userid}`, {
      ...claim(userid),
      ...resume,
    });
    expect(await own.presence()).toMatchObject({ status: INVISIBLE, online: true });
    // A stranger with the same id learns that it went, and nothing of what follows.
    clock.advance(1000);
    await ping(app, { userid, clientid: "phone", status: INVISIBLE });
    using other = await EventStream.open(app, `/subscribe/${userid}`, resume);
    const gone = await other.presence();
    expect(gone.online).toBe(false);
    await ping(app, { userid, clientid: "phone", status: INVISIBLE });
    using again = await EventStream.open(app, `/subscribe/${userid}`, { "last-event-id": gone.id });
    await ping(app, { userid, clientid: "phone", status: "1" });
    expect(await again.presence()).toMatchObject({ status: "1", online: true });
  });
});
