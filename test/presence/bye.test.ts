import { describe, expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { aUser, claim, snapshot } from "../support/presence.ts";
import { PresenceSocket } from "../support/presence-socket.ts";
import { WatchedUser } from "../support/watched-user.ts";

const clock = new FakeClock();
const app = TestApp.forTests({ clock });

describe("bye", () => {
  test("takes the device away at once, and the user with the last one", async () => {
    const userid = aUser();
    using other = await WatchedUser.open(app, userid);
    using phone = await PresenceSocket.open(app, { headers: claim(userid, "phone") });
    using desk = await PresenceSocket.open(app, { headers: claim(userid, "desk") });
    phone.send({ type: "ping", status: "0" });
    expect((await other.stream.presence()).status).toBe("0");
    desk.send({ type: "ping", status: "1" });
    expect((await other.stream.presence()).status).toBe("0");
    const time = clock.epochS;
    clock.advance(5000);
    phone.send({ type: "bye" });
    expect(await other.stream.presence()).toMatchObject({
      time,
      status: "1",
      online: true,
      clientid: "phone",
    });
    desk.send({ type: "bye" });
    expect(await other.stream.presence()).toMatchObject({ time, online: false, clientid: "desk" });
    expect(await snapshot(app, [userid])).toMatchObject({ [userid]: { time, online: false } });
    clock.advance(61_000);
    await other.quietAfterTick();
  });

  test("said twice, or by a device that never pinged, is no news", async () => {
    const userid = aUser();
    using other = await WatchedUser.open(app, userid);
    using phone = await PresenceSocket.open(app, { headers: claim(userid, "phone") });
    phone.send({ type: "bye" });
    await phone.settled();
    await other.quiet();
    phone.send({ type: "ping", status: "0" });
    expect((await other.stream.presence()).online).toBe(true);
    phone.send({ type: "bye" });
    phone.send({ type: "bye" });
    expect((await other.stream.presence()).online).toBe(false);
    await phone.settled();
    await other.quiet();
  });

  test("is taken back by the next ping on the same socket", async () => {
    const userid = aUser();
    using phone = await PresenceSocket.open(app, { headers: claim(userid, "phone") });
    await phone.subscribe(userid);
    for (const [frame, online] of [
      [{ type: "ping", status: "0" }, true],
      [{ type: "bye" }, false],
      [{ type: "ping", status: "0" }, true],
    ] as const) {
      phone.send(frame);
      expect((await phone.presence()).online).toBe(online);
    }
  });
});
