import { describe, expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { EventStream } from "../support/event-stream.ts";
import { timed } from "../support/eventually.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { PresenceEvent, aUser, checked, flood, ping, snapshot } from "../support/presence.ts";
import { WatchedUser } from "../support/watched-user.ts";

const BY_PRIORITY: [string, string][] = [
  ["0", "2"],
  ["0", "1"],
  ["0", "lunch"],
  ["2", "1"],
  ["2", "lunch"],
  ["1", "lunch"],
];

const clock = new FakeClock();
const app = TestApp.forTests({ clock });

describe("a user with several devices", () => {
  test.each(BY_PRIORITY)("is %p, not %p, whichever comes first", async (high, low) => {
    for (const statuses of [
      [high, low],
      [low, high],
    ]) {
      const userid = aUser();
      using stream = await EventStream.open(app, `/subscribe/${userid}`);
      for (const [index, status] of statuses.entries()) {
        await ping(app, { userid, clientid: status, status });
        const event = await stream.presence();
        expect(event).toMatchObject({ status: index === 0 ? status : high, clientid: status });
      }
      expect(await snapshot(app, [userid])).toMatchObject({ [userid]: { status: high } });
    }
  });

  test("has the time of the newest ping, whichever device it is of", async () => {
    const userid = aUser();
    using stream = await EventStream.open(app, `/subscribe/${userid}`);
    await ping(app, { userid, clientid: "phone", status: "0" });
    await stream.presence();
    clock.advance(10_000);
    await ping(app, { userid, clientid: "desk", status: "1" });
    const expected = { time: clock.epochS, status: "0", online: true };
    expect(await stream.presence()).toMatchObject({ ...expected, clientid: "desk" });
    expect(await snapshot(app, [userid])).toEqual({ [userid]: expected });
  });

  test("follows a device that changes its status", async () => {
    const userid = aUser();
    using stream = await EventStream.open(app, `/subscribe/${userid}`);
    for (const [clientid, status, shown] of [
      ["phone", "0", "0"],
      ["desk", "2", "0"],
      ["phone", "1", "2"],
      ["desk", "lunch", "1"],
      ["phone", "0", "0"],
    ] as const) {
      await ping(app, { userid, clientid, status });
      expect(await stream.presence()).toMatchObject({ status: shown, clientid });
    }
  });

  test("may leave out the client id, which is a device of its own", async () => {
    const userid = aUser();
    using stream = await EventStream.open(app, `/subscribe/${userid}`);
    await ping(app, { userid, status: "0" });
    expect(await stream.presence()).toMatchObject({ status: "0", clientid: "" });
    await ping(app, { userid, clientid: "phone", status: "1" });
    expect(await stream.presence()).toMatchObject({ status: "0", clientid: "phone" });
  });
});

describe("a user with more client ids than anyone has devices", () => {
  test("costs each ping and each event the same, and goes offline once", async () => {
    const userid = aUser();
    using user = await WatchedUser.open(app, userid);
    await ping(app, { userid, clientid: "first", status: "0" });
    const first = await user.stream.event();
    let last = first;
    const { time } = checked(PresenceEvent, JSON.parse(first.data));
    const { ms } = await timed(async () => {
      for (let device = 0; device < 400; device++) {
        const clientid = `c${String(device).padStart(127, "0")}`;
        await ping(app, { userid, clientid, status: device === 399 ? "0" : "1" });
        last = await user.stream.event();
      }
    });
    expect(last.data.length).toBeLessThan(first.data.length + 200);
    expect(JSON.parse(last.data)).toMatchObject({ status: "0", online: true });
    expect(ms).toBeLessThan(6000);
    expect(await snapshot(app, [userid])).toEqual({
      [userid]: { time, status: "0", online: true },
    });
    clock.advance(61_000);
    const events = [await user.stream.presence()];
    while (events.at(-1)?.online) events.push(await user.stream.presence());
    // All of them expire together, so that they are one change.
    expect(events).toHaveLength(1);
    await user.quietAfterTick();
  });

  test("goes offline also when they are invisible and push out the one that was seen", async () => {
    const userid = aUser();
    using user = await WatchedUser.open(app, userid);
    await ping(app, { userid, clientid: "phone", status: "0" });
    await user.stream.presence();
    const pings = Array.from({ length: 150 }, (_, device) => ({
      userid,
      clientid: `hidden-${device}`,
      status: "3",
    }));
    await flood(app, pings);
    clock.advance(61_000);
    const { time, ...gone } = await user.stream.presence();
    expect(gone).toMatchObject({ userid, online: false });
    // Nor does the time go backwards because nobody remembers it.
    clock.jump(-3_600_000);
    await ping(app, { userid, clientid: "desk", status: "0" });
    expect(await user.stream.presence()).toMatchObject({ time, online: true });
    clock.jump(3_600_000);
  });
});
