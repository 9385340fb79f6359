import { describe, expect, test } from "bun:test";

import { metric } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { EventStream } from "../support/event-stream.ts";
import { eventually } from "../support/eventually.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { aUser, bearerOf, claim, mint, ping, snapshot, watching } from "../support/presence.ts";
import { PresenceSocket } from "../support/presence-socket.ts";
import { RawSocket } from "../support/raw-socket.ts";

const SOCKETS = 'floodgate_presence_connections{transport="websocket"}';

const clock = new FakeClock();
const app = TestApp.forTests({ clock });

describe.each([
  ["JSON", false],
  ["MessagePack", true],
])("with %s frames", (_format, msgpack) => {
  test("one connection pings and watches", async () => {
    const userid = aUser();
    using socket = await PresenceSocket.open(app, { headers: claim(userid, "phone"), msgpack });
    expect(socket.socket.protocol).toBe(msgpack ? "floodgate.msgpack" : "");
    await socket.subscribe(userid);
    for (const status of ["0", "2", "2", "brb ü€😀"]) {
      clock.advance(1000);
      socket.send({ type: "ping", status });
      expect(await socket.presence()).toEqual({
        type: "presence",
        id: expect.any(String),
        userid,
        time: clock.epochS,
        status,
        online: true,
        clientid: "phone",
      });
    }
    expect([socket.waiting, socket.foreign]).toEqual([0, 0]);
  });

  test("a subscription begins with the present of who was seen", async () => {
    const [ann, bob, eve] = [aUser("ann"), aUser("bob"), aUser("eve")];
    await ping(app, { userid: ann, clientid: "phone", status: "1" });
    using socket = await PresenceSocket.open(app, { msgpack });
    await socket.subscribe(bob, ann);
    expect(await socket.presence()).toMatchObject({ userid: ann, status: "1", online: true });
    await ping(app, { userid: eve, status: "0" });
    await ping(app, { userid: bob, status: "2" });
    expect(await socket.presence()).toMatchObject({ userid: bob, status: "2" });
    await socket.subscribe(eve);
    expect(await socket.presence()).toMatchObject({ userid: eve, status: "0" });
    await ping(app, { userid: ann, clientid: "phone", status: "0" });
    expect(await socket.presence()).toMatchObject({ userid: ann, status: "0" });
  });

  test("who is no longer watched is no longer told", async () => {
    const [ann, bob, eve] = [aUser("ann"), aUser("bob"), aUser("eve")];
    await ping(app, { userid: eve, status: "0" });
    using socket = await PresenceSocket.open(app, { msgpack });
    await socket.subscribe(ann, bob);
    socket.send({ type: "unsubscribe", users: [ann, aUser("stranger")] });
    // Frames are obeyed in their order, so that the first is done when the next is answered.
    await socket.subscribe(eve);
    expect((await socket.presence()).userid).toBe(eve);
    await ping(app, { userid: ann, status: "0" });
    await ping(app, { userid: bob, status: "0" });
    expect((await socket.presence()).userid).toBe(bob);
    await socket.subscribe(ann);
    expect(await socket.presence()).toMatchObject({ userid: ann, status: "0" });
  });

  test("the expiry of a user is told", async () => {
    const userid = aUser();
    using socket = await PresenceSocket.open(app, { msgpack });
    await socket.subscribe(userid);
    await ping(app, { userid, status: "0" });
    const { time } = await socket.presence();
    clock.advance(61_000);
    expect(await socket.presence()).toMatchObject({ userid, time, online: false });
  });

  test("errors are frames of the same kind, and do not end the connection", async () => {
    const userid = aUser();
    using socket = await PresenceSocket.open(app, { headers: claim(userid), msgpack });
    socket.send({ type: "nonsense" });
    expect(await socket.error()).toBe("bad_frame");
    await socket.subscribe(userid);
    socket.send({ type: "ping", status: "0" });
    expect((await socket.presence()).status).toBe("0");
    expect(socket.foreign).toBe(0);
  });
});

describe("a ping by socket", () => {
  test("reaches streams, sockets and snapshots like any other", async () => {
    const userid = aUser();
    using stream = await EventStream.open(app, `/subscribe/${userid}`);
    using watcher = await PresenceSocket.open(app);
    await watcher.subscribe(userid);
    using device = await PresenceSocket.open(app, { headers: claim(userid, "desk") });
    device.send({ type: "ping", status: "2" });
    const { id, ...event } = await stream.presence();
    const { id: frameId, type: _type, ...frame } = await watcher.presence();
    expect([frame, frameId]).toEqual([event, id]);
    expect(await snapshot(app, [userid])).toMatchObject({ [userid]: { status: "2" } });
  });

  test("without a status keeps the one before", async () => {
    const userid = aUser();
    using socket = await PresenceSocket.open(app, { headers: claim(userid, "phone") });
    await socket.subscribe(userid);
    await ping(app, { userid, clientid: "phone", status: "brb" });
    expect((await socket.presence()).status).toBe("brb");
    socket.send({ type: "ping" });
    expect((await socket.presence()).status).toBe("brb");
  });

  test("is obeyed in the order of its frames, also when it keeps its status", async () => {
    const [ann, bob] = [aUser("ann"), aUser("bob")];
    for (const userid of [ann, bob]) await ping(app, { userid, clientid: "phone", status: "1" });
    using first = await PresenceSocket.open(app, { headers: claim(ann, "phone") });
    first.send({ type: "ping" });
    first.send({ type: "bye" });
    using second = await PresenceSocket.open(app, { headers: claim(bob, "phone") });
    second.send({ type: "ping" });
    second.send({ type: "ping", status: "2" });
    await Promise.all([first.settled(), second.settled()]);
    const obeyed = { [ann]: { online: false }, [bob]: { status: "2", online: true } };
    await eventually("all is obeyed", async () =>
      Bun.deepMatch(obeyed, await snapshot(app, [ann, bob])),
    );
  });

  test("is told once to who subscribes in the same moment", async () => {
    const userid = aUser();
    // So that the server knows the user.
    using watcher = await EventStream.open(app, `/subscribe/${userid}`);
    for (let turn = 0; turn < 10; turn++) {
      using socket = await PresenceSocket.open(app, { headers: claim(userid) });
      socket.send({ type: "ping", status: `first ${turn}` });
      socket.send({ type: "subscribe", users: [userid] });
      expect((await socket.presence()).status).toBe(`first ${turn}`);
      socket.send({ type: "ping", status: `second ${turn}` });
      expect((await socket.presence()).status).toBe(`second ${turn}`);
    }
    await eventually("an event of each ping", () => watcher.waiting === 20, 2000);
  });

  test("may have a number as status", async () => {
    const userid = aUser();
    using socket = await PresenceSocket.open(app, { headers: claim(userid) });
    await socket.subscribe(userid);
    socket.send({ type: "ping", status: 2 });
    expect((await socket.presence()).status).toBe("2");
  });

  test("is of the user of the token, whatever the frame says", async () => {
    const [userid, other] = [aUser(), aUser()];
    const { token } = await mint(app, { userid, clientid: "phone" });
    using byQuery = await PresenceSocket.open(app, { query: `token=${token}` });
    using byHeader = await PresenceSocket.open(app, { headers: bearerOf(token) });
    for (const socket of [byQuery, byHeader]) {
      await socket.subscribe(userid, other);
      if (socket === byHeader) await socket.presence();
      socket.send({ type: "ping", status: "1", userid: other, clientid: "other" });
      const answer = await socket.frame();
      // Fields too many may be refused or ignored.
      if (answer !== null && typeof answer === "object" && "code" in answer)
        socket.send({ type: "ping", status: "1" });
      else expect(answer).toMatchObject({ userid, clientid: "phone" });
    }
    expect(await snapshot(app, [other])).toMatchObject({ [other]: { online: false } });
  });

  test("is told once to a user that is named or subscribed to repeatedly", async () => {
    const userid = aUser();
    using socket = await PresenceSocket.open(app, { headers: claim(userid) });
    await socket.subscribe(userid, userid, userid);
    await socket.subscribe(userid);
    socket.send({ type: "ping", status: "0" });
    socket.send({ type: "ping", status: "1" });
    expect((await socket.presence()).status).toBe("0");
    expect((await socket.presence()).status).toBe("1");
    await socket.settled();
    expect(socket.waiting).toBe(0);
  });
});

describe("closing the socket", () => {
  test("is not going offline: the TTL decides", async () => {
    const userid = aUser();
    const marker = aUser();
    using stream = await EventStream.open(app, watching(userid, marker));
    {
      using device = await PresenceSocket.open(app, { headers: claim(userid, "phone") });
      device.send({ type: "ping", status: "0" });
      expect((await stream.presence()).online).toBe(true);
      device.socket.close();
      await device.closed;
    }
    clock.advance(58_000);
    await Bun.sleep(350);
    await ping(app, { userid: marker, status: "0" });
    expect((await stream.presence()).userid).toBe(marker);
    expect(await snapshot(app, [userid])).toMatchObject({ [userid]: { online: true } });
    clock.advance(3000);
    expect(await stream.presence()).toMatchObject({ userid, online: false });
  });

  test("ends its place among the connections, also when it is cut", async () => {
    const counted = async () => await metric(app, SOCKETS);
    await eventually("no sockets of other tests", async () => (await counted()) === 0);
    const userid = aUser();
    using closes = await PresenceSocket.open(app);
    using breaks = await RawSocket.open(app);
    using stays = await PresenceSocket.open(app);
    for (const socket of [closes, stays]) await socket.subscribe(userid);
    breaks.send({ type: "subscribe", users: [userid] });
    expect(await counted()).toBe(3);
    closes.socket.close();
    breaks[Symbol.dispose]();
    await eventually("one socket", async () => (await counted()) === 1, 3000);
    await ping(app, { userid, status: "0" });
    expect((await stays.presence()).userid).toBe(userid);
  });
});

describe("the handshake", () => {
  test("takes the first subprotocol that it knows", async () => {
    using socket = await RawSocket.open(app, {
      headers: { "sec-websocket-protocol": "soap, floodgate.msgpack, mqtt" },
    });
    expect(socket.status).toBe(101);
    expect(socket.headers.get("sec-websocket-protocol")).toBe("floodgate.msgpack");
  });

  test.each(["soap", "soap, mqtt", "floodgate", "FLOODGATE.MSGPACK2", "floodgate.msgpack.v2"])(
    "agrees on none of the subprotocols %p, and frames are JSON",
    async (protocols) => {
      const userid = aUser();
      await ping(app, { userid, status: "0" });
      using socket = await RawSocket.open(app, {
        headers: { "sec-websocket-protocol": protocols },
      });
      expect([socket.status, socket.headers.get("sec-websocket-protocol")]).toEqual([101, null]);
      socket.send({ type: "subscribe", users: [userid] });
      await eventually("a frame", () => socket.frames.length === 1, 2000);
      expect(socket.frames).toMatchObject([{ type: "presence", userid }]);
    },
  );

  test("is asked for when a plain request comes", async () => {
    const answer = await app.fetch("/presence/ws", { headers: claim("ann") });
    expect(answer.status).toBe(426);
    expect(answer.headers.get("access-control-allow-origin")).toBe("*");
    expect((await app.fetch("/presence/ws", { method: "POST" })).status).toBe(405);
  });

  test("may have doubled slashes in its path", async () => {
    const socket = new WebSocket(`${app.url.replace("http", "ws")}//presence//ws/`);
    const opened = Promise.withResolvers<string>();
    socket.addEventListener("open", () => opened.resolve("open"));
    socket.addEventListener("close", () => opened.resolve("refused"));
    expect(await opened.promise).toBe("open");
    socket.terminate();
  });
});
