import { Packr, pack } from "msgpackr";
import { describe, expect, test } from "bun:test";

import { metric } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { eventually } from "../support/eventually.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { ErrorFrame, aUser, checked, claim, ping, snapshot } from "../support/presence.ts";
import { PresenceSocket } from "../support/presence-socket.ts";
import { RawSocket, maskedFrame } from "../support/raw-socket.ts";

const SOCKETS = 'floodgate_presence_connections{transport="websocket"}';
const KIB = 1024;
const MIB = 2 ** 20;
// Frames that a socket may send before its rate counts.
const BURST = 100;

const clock = new FakeClock();
const app = TestApp.forTests({ clock });

/** A frame that is right and is not answered. */
const SILENT = { type: "unsubscribe", users: ["nobody"] };

const BAD_TEXTS: [string, string][] = [
  ["no JSON", "hello"],
  ["empty", ""],
  ["cut short", '{"type":"ping"'],
  ["a number", "7"],
  ["true", "true"],
  ["null", "null"],
  ["text", '"ping"'],
  ["a list", '[{"type":"ping"}]'],
  ["an object without a type", "{}"],
  ["of a type that is no text", '{"type":1}'],
  ["of an unknown type", '{"type":"shout"}'],
  ["of a type that only servers send", '{"type":"presence"}'],
  ["of a type that every object has", '{"type":"constructor"}'],
  ["a ping with an object as status", '{"type":"ping","status":{}}'],
  ["a ping with null as status", '{"type":"ping","status":null}'],
  ["a ping with a status of 65 characters", `{"type":"ping","status":"${"x".repeat(65)}"}`],
  ["a ping with a NUL", '{"type":"ping","status":"\\u0000"}'],
  ["a subscription to nothing", '{"type":"subscribe"}'],
  ["a subscription to text", '{"type":"subscribe","users":"ann"}'],
  ["a subscription to numbers", '{"type":"subscribe","users":[1,2]}'],
  ["a subscription to an empty user", '{"type":"subscribe","users":[""]}'],
  [
    "a subscription to a user of 129 characters",
    `{"type":"subscribe","users":["${"u".repeat(129)}"]}`,
  ],
  ["a subscription to a user with a NUL", '{"type":"subscribe","users":["a\\u0000"]}'],
  ["the end of a subscription to numbers", '{"type":"unsubscribe","users":[1]}'],
  ["deeply nested", `{"type":${"[".repeat(20_000)}${"]".repeat(20_000)}}`],
];

describe("a bad frame gets an error frame", () => {
  test.each(BAD_TEXTS)("when it is %s", async (_what, text) => {
    using socket = await PresenceSocket.open(app, { headers: claim(aUser()) });
    socket.socket.send(text);
    expect(await socket.error()).toBe("bad_frame");
    await socket.settled();
    expect([socket.waiting, socket.socket.readyState]).toEqual([0, WebSocket.OPEN]);
  });

  test("when it is binary and text was agreed on, and the other way round", async () => {
    const frame = { type: "ping", status: "0" };
    const headers = claim(aUser());
    using text = await PresenceSocket.open(app, { headers });
    text.socket.send(pack(frame));
    expect(await text.error()).toBe("bad_frame");
    text.socket.send(Buffer.from(JSON.stringify(frame)));
    expect(await text.error()).toBe("bad_frame");
    using binary = await PresenceSocket.open(app, { headers, msgpack: true });
    binary.socket.send(JSON.stringify(frame));
    expect([await binary.error(), binary.foreign]).toEqual(["bad_frame", 0]);
  });

  test.each<[string, Uint8Array]>([
    ["empty", new Uint8Array()],
    ["cut short", pack({ type: "ping", status: "0" }).subarray(0, 8)],
    ["followed by more", Buffer.concat([pack({ type: "ping" }), pack({ type: "ping" })])],
    ["a list", pack(["ping"])],
    ["of an unknown type", pack({ type: "shout" })],
    ["a reserved byte", Uint8Array.of(0xc1)],
    ["a text that claims four gigabytes", Uint8Array.of(0xdb, 0xff, 0xff, 0xff, 0xff)],
    ["a list that claims four billion items", Uint8Array.of(0xdd, 0xff, 0xff, 0xff, 0xff)],
    ["a map that claims four billion items", Uint8Array.of(0xdf, 0xff, 0xff, 0xff, 0xff)],
    ["an unknown extension", Uint8Array.of(0xd4, 0x55, 0x00)],
    ["deeply nested", new Uint8Array(60_000).fill(0x91)],
  ])("when it is MessagePack that is %s", async (_what, bytes) => {
    using socket = await PresenceSocket.open(app, { headers: claim(aUser()), msgpack: true });
    socket.socket.send(bytes);
    expect(await socket.error()).toBe("bad_frame");
    await socket.settled();
    expect([socket.waiting, socket.socket.readyState]).toEqual([0, WebSocket.OPEN]);
  });

  test("and MessagePack records of one client are none of another's", async () => {
    const userid = aUser();
    const headers = claim(userid);
    using bad = await PresenceSocket.open(app, { msgpack: true });
    // Defines the record 0x40, which a plain reader takes for the number 64.
    bad.socket.send(new Packr({ useRecords: true }).pack({ type: "shout", users: ["ann"] }));
    await bad.frame();
    using good = await PresenceSocket.open(app, { headers, msgpack: true });
    await good.subscribe(userid);
    good.send({ type: "ping", status: 64 });
    expect((await good.presence()).status).toBe("64");
  });

  test("and the tenth in a minute closes", async () => {
    using socket = await PresenceSocket.open(app);
    for (let bad = 1; bad <= 9; bad++) {
      socket.socket.send("bad");
      expect(await socket.error()).toBe("bad_frame");
      clock.advance(5000);
    }
    await socket.settled();
    expect(socket.socket.readyState).toBe(WebSocket.OPEN);
    socket.socket.send("bad");
    expect((await socket.closed).code).toBe(1008);
  });

  test("and those of the minute before are forgotten", async () => {
    using socket = await PresenceSocket.open(app);
    for (let bad = 1; bad <= 30; bad++) {
      socket.socket.send("bad");
      expect(await socket.error()).toBe("bad_frame");
      clock.advance(7000);
    }
    await socket.settled();
    expect(socket.socket.readyState).toBe(WebSocket.OPEN);
  });

  test("and does not disturb others", async () => {
    const userid = aUser();
    using watcher = await PresenceSocket.open(app);
    await watcher.subscribe(userid);
    using socket = await PresenceSocket.open(app);
    for (let bad = 1; bad <= 10; bad++) socket.socket.send("bad");
    expect((await socket.closed).code).toBe(1008);
    await ping(app, { userid, status: "0" });
    expect((await watcher.presence()).userid).toBe(userid);
  });
});

describe("a frame that is too large", () => {
  test("is told and closes at once", async () => {
    using socket = await PresenceSocket.open(app, { headers: claim(aUser()) });
    socket.socket.send(JSON.stringify({ type: "ping", status: "0" }).padEnd(64 * KIB + 1));
    expect(await socket.error()).toBe("too_large");
    expect((await socket.closed).code).toBe(1008);
  });

  test("is one of 1 MiB, too", async () => {
    using socket = await PresenceSocket.open(app);
    socket.socket.send("x".repeat(MIB));
    expect(await socket.error()).toBe("too_large");
    expect((await socket.closed).code).toBe(1008);
  });

  test("is not one of 64 KiB", async () => {
    const userid = aUser();
    using socket = await PresenceSocket.open(app, { headers: claim(userid) });
    await socket.subscribe(userid);
    socket.socket.send(JSON.stringify({ type: "ping", status: "0" }).padEnd(64 * KIB));
    expect((await socket.presence()).status).toBe("0");
  });

  test("is refused before it has come, however much is announced", async () => {
    using socket = await RawSocket.open(app);
    // 1 GiB by its head; a server that waits for it holds what comes.
    const head = Buffer.from([0x81, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0]);
    const before = process.memoryUsage.rss();
    socket.write(head);
    for (let sent = 0; sent < 24; sent++) socket.write(new Uint8Array(MIB));
    await socket.closed;
    expect(process.memoryUsage.rss() - before).toBeLessThan(96 * MIB);
  });

  test("may not come in fragments either", async () => {
    using socket = await RawSocket.open(app);
    const fragment = maskedFrame(0, Buffer.alloc(32 * KIB, 0x20));
    const first = Buffer.from(fragment);
    // Text, not final; the rest are continuations, not final.
    first[0] = 0x01;
    const next = Buffer.from(fragment);
    next[0] = 0x00;
    socket.write(first);
    for (let count = 0; count < 64; count++) socket.write(next);
    await socket.closed;
    expect(socket.closeCode === undefined || socket.closeCode >= 1002).toBe(true);
  });
});

describe("a flood of frames", () => {
  test("is told after a burst of 100, and is over 20 a second", async () => {
    using socket = await PresenceSocket.open(app);
    for (let sent = 0; sent < BURST; sent++) socket.send(SILENT);
    await socket.settled();
    expect(socket.waiting).toBe(0);
    socket.send(SILENT);
    expect(await socket.error()).toBe("too_many_frames");
    clock.advance(1000);
    for (let sent = 0; sent < 20; sent++) socket.send(SILENT);
    await socket.settled();
    expect(socket.waiting).toBe(0);
    socket.send(SILENT);
    expect(await socket.error()).toBe("too_many_frames");
    clock.advance(60_000);
    for (let sent = 0; sent < BURST; sent++) socket.send(SILENT);
    await socket.settled();
    expect(socket.waiting).toBe(0);
  });

  test("is not worked on beyond its rate", async () => {
    const userid = aUser();
    using socket = await PresenceSocket.open(app, { headers: claim(userid) });
    for (let sent = 0; sent < BURST; sent++) socket.send(SILENT);
    socket.send({ type: "ping", status: "0" });
    expect(await socket.error()).toBe("too_many_frames");
    expect(await snapshot(app, [userid])).toMatchObject({ [userid]: { online: false } });
  });

  test("closes with the tenth frame too many, at any speed in flat memory", async () => {
    const series = 'floodgate_presence_dropped_total{reason="frames"}';
    const dropped = await metric(app, series);
    const frame = maskedFrame(1, Buffer.from(JSON.stringify(SILENT)));
    const block = Buffer.concat(Array.from({ length: 20_000 }, () => frame));
    const before = process.memoryUsage.rss();
    for (let attempt = 0; attempt < 10; attempt++) {
      using socket = await RawSocket.open(app);
      socket.write(block);
      await socket.closed;
      expect(socket.closeCode).toBe(1008);
      const codes = socket.frames.map((one) => checked(ErrorFrame, one).code);
      expect(codes).toEqual(Array.from({ length: codes.length }, () => "too_many_frames"));
      expect(codes.length).toBeGreaterThanOrEqual(9);
      expect(codes.length).toBeLessThanOrEqual(10);
    }
    expect(process.memoryUsage.rss() - before).toBeLessThan(64 * MIB);
    expect(await metric(app, series)).toBe(dropped + 10);
    await eventually("no sockets", async () => (await metric(app, SOCKETS)) === 0, 3000);
  });
});

describe("too many users", () => {
  test("are 201 in one frame, of whom none is watched", async () => {
    const users = Array.from({ length: 201 }, () => aUser());
    using socket = await PresenceSocket.open(app);
    socket.send({ type: "subscribe", users });
    expect(await socket.error()).toBe("too_many_users");
    await ping(app, { userid: users[0] ?? "", status: "0" });
    const other = aUser();
    await socket.subscribe(other);
    await ping(app, { userid: other, status: "0" });
    expect((await socket.presence()).userid).toBe(other);
  });

  test("are 1001 on one socket, where 1000 are not", async () => {
    const groups = Array.from({ length: 5 }, () => Array.from({ length: 200 }, () => aUser()));
    using socket = await PresenceSocket.open(app);
    // Who is watched already is not one more, nor who is named twice.
    const [first = []] = groups;
    for (const users of [first, [...first.slice(1), first[1]], ...groups, first])
      socket.send({ type: "subscribe", users });
    await socket.settled();
    expect(socket.waiting).toBe(0);
    const [ann, bob] = [aUser("ann"), aUser("bob")];
    await socket.subscribe(...first);
    expect(socket.waiting).toBe(0);
    socket.send({ type: "subscribe", users: [ann] });
    expect(await socket.error()).toBe("too_many_users");
    socket.send({ type: "unsubscribe", users: first.slice(0, 1) });
    await socket.subscribe(bob);
    for (const userid of [ann, first[0] ?? "", bob]) await ping(app, { userid, status: "0" });
    expect((await socket.presence()).userid).toBe(bob);
    expect(socket.waiting).toBe(0);
  });
});

test("who is nobody may watch, and neither ping nor say bye", async () => {
  const userid = aUser();
  using socket = await PresenceSocket.open(app);
  await socket.subscribe(userid);
  for (const frame of [{ type: "ping", status: "0" }, { type: "bye" }]) {
    socket.send(frame);
    expect(await socket.error()).toBe("no_identity");
  }
  await ping(app, { userid, status: "0" });
  expect((await socket.presence()).userid).toBe(userid);
});
