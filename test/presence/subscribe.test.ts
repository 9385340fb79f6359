import { describe, expect, test } from "bun:test";

import { metric, refusalOf } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { EventStream } from "../support/event-stream.ts";
import { eventually, timed } from "../support/eventually.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { aUser, claim, ping, watching } from "../support/presence.ts";
import { RawConnection } from "../support/raw-connection.ts";

const STREAMS = 'floodgate_presence_connections{transport="sse"}';

const clock = new FakeClock();
const app = TestApp.forTests({ clock });

async function streams(): Promise<number> {
  return await metric(app, STREAMS);
}

describe("a stream", () => {
  test("is of the event stream type, and no proxy holds or changes it", async () => {
    using stream = await EventStream.open(app, `/subscribe/${aUser()}/client/phone`);
    expect(stream.status).toBe(200);
    expect(stream.headers.get("content-type")).toMatch(/^text\/event-stream\b/);
    expect(stream.headers.get("cache-control")).toBe("no-cache, no-transform");
    expect(stream.headers.get("x-accel-buffering")).toBe("no");
    expect(stream.headers.get("access-control-allow-origin")).toBe("*");
    expect(stream.headers.get("content-length")).toBeNull();
  });

  test("begins at once with a comment, also for a user that was never seen", async () => {
    const { result, ms } = await timed(
      async () => await EventStream.open(app, `/subscribe/${aUser()}`),
    );
    using stream = result;
    expect(stream.comments).toHaveLength(1);
    expect(stream.events).toEqual([]);
    expect(ms).toBeLessThan(1000);
  });

  test("begins with the cached ping where there is one", async () => {
    const userid = aUser();
    await ping(app, { userid, clientid: "phone", status: "2" });
    const time = clock.epochS;
    clock.advance(7000);
    using stream = await EventStream.open(app, `/subscribe/${userid}/client/desk`);
    expect(await stream.presence()).toEqual({
      id: expect.any(String),
      userid,
      time,
      status: "2",
      online: true,
      clientid: "phone",
    });
  });

  test("has one unnamed event with an id for each ping, and only for pings of its user", async () => {
    const [userid, other] = [aUser(), aUser()];
    using stream = await EventStream.open(app, `/subscribe/${userid}/client/phone`);
    const ids = new Set<string>();
    for (const status of ["0", "0", "1", "brb", "0"]) {
      clock.advance(1000);
      await ping(app, { userid: other, clientid: "phone", status: "other" });
      await ping(app, { userid, clientid: "phone", status });
      const { id, ...event } = await stream.presence();
      expect(event).toEqual({
        userid,
        time: clock.epochS,
        status,
        online: true,
        clientid: "phone",
      });
      ids.add(id);
    }
    expect(ids.size).toBe(5);
    expect(stream.waiting).toBe(0);
  });

  test("has the time as a number of seconds and the status as text, as documented", async () => {
    const userid = aUser();
    using stream = await EventStream.open(app, `/subscribe/${userid}`);
    await app.post("/ping", '{"status":1}', claim(userid, "phone"));
    const { id, event, data } = await stream.event();
    expect(event).toBe("message");
    expect(id).toMatch(/^[\d.]+(-\w+)+$/);
    expect(data).toContain(`"time":${clock.epochS},`);
    expect(data).toContain('"status":"1"');
  });

  test("is the same under its short path, and no client id filters it", async () => {
    const userid = aUser();
    using short = await EventStream.open(app, `/subscribe/${userid}`);
    using same = await EventStream.open(app, `/subscribe/${userid}/client/phone`);
    using another = await EventStream.open(app, `//subscribe/${userid}/client/desk/`);
    await ping(app, { userid, clientid: "phone", status: "1" });
    const events = [await short.presence(), await same.presence(), await another.presence()];
    for (const event of events) expect(event).toMatchObject({ userid, clientid: "phone" });
  });

  test.each([
    "with space",
    "a/b",
    "a//b",
    "ü€😀",
    "50%",
    "a%2Fb",
    "a+b",
    "a?b#c&d=e",
    "a,b",
    "ann@example.org",
    "client",
    "__proto__",
    "constructor",
    "u".repeat(128),
  ])("may be of the user %p", async (userid) => {
    using stream = await EventStream.open(
      app,
      `/subscribe/${encodeURIComponent(userid)}/client/${encodeURIComponent(userid)}`,
    );
    await ping(app, { userid, clientid: userid, status: "1" });
    expect(await stream.presence()).toMatchObject({ userid, clientid: userid, status: "1" });
  });

  test("gets a comment every 25 seconds, and none more", async () => {
    using stream = await EventStream.open(app, `/subscribe/${aUser()}`);
    for (let comments = 2; comments <= 4; comments++) {
      clock.advance(25_000);
      await eventually("a comment", () => stream.comments.length === comments, 2000);
      await Bun.sleep(300);
      expect(stream.comments.length).toBe(comments);
    }
    expect(stream.events).toEqual([]);
  });

  test("gets a comment every 25 seconds also while it has events", async () => {
    const userid = aUser();
    using stream = await EventStream.open(app, `/subscribe/${userid}`);
    for (let second = 0; second < 30; second += 10) {
      clock.advance(10_000);
      await ping(app, { userid, status: "0" });
      await stream.presence();
    }
    await eventually("a comment", () => stream.comments.length >= 2, 2000);
  });
});

describe("a stream of many users", () => {
  test("begins with those that were seen and goes on with all of them", async () => {
    const [ann, bob, eve, zoe] = [aUser("ann"), aUser("bob"), aUser("eve ü"), aUser("zoe")];
    await ping(app, { userid: ann, status: "0" });
    await ping(app, { userid: eve, status: "1" });
    using stream = await EventStream.open(app, watching(ann, bob, eve));
    const first = [await stream.presence(), await stream.presence()];
    expect(new Set(first.map(({ userid }) => userid))).toEqual(new Set([ann, eve]));
    await ping(app, { userid: zoe, status: "0" });
    for (const userid of [bob, ann, eve, bob]) {
      await ping(app, { userid, status: "2" });
      expect(await stream.presence()).toMatchObject({ userid, status: "2", online: true });
    }
    expect(stream.waiting).toBe(0);
  });

  test("may be of 200", async () => {
    const users = Array.from({ length: 200 }, () => aUser());
    using stream = await EventStream.open(app, watching(...users));
    for (const userid of [users[0] ?? "", users[199] ?? ""]) {
      await ping(app, { userid, status: "0" });
      expect((await stream.presence()).userid).toBe(userid);
    }
  });

  test("is refused for 201, which names the limit", async () => {
    const users = Array.from({ length: 201 }, () => aUser());
    const [status, text] = await refusalOf(app.fetch(watching(...users)));
    expect(status).toBe(400);
    expect(text).toContain("200");
  });

  test("tells each change once, however often a user is named", async () => {
    const [ann, bob] = [aUser("ann"), aUser("bob")];
    await ping(app, { userid: ann, status: "0" });
    const named = Array.from({ length: 150 }, () => [ann, bob]).flat();
    using stream = await EventStream.open(app, watching(...named));
    expect(await stream.presence()).toMatchObject({ userid: ann, status: "0" });
    await ping(app, { userid: ann, status: "1" });
    await ping(app, { userid: bob, status: "1" });
    expect(await stream.presence()).toMatchObject({ userid: ann, status: "1" });
    expect(await stream.presence()).toMatchObject({ userid: bob, status: "1" });
  });
});

describe("around the route", () => {
  test.each([
    ["no users", "/subscribe"],
    ["an empty list", "/subscribe?users="],
    ["a list of nothing", "/subscribe?users=,,"],
    ["a user id of 129 characters", `/subscribe/${"u".repeat(129)}`],
    ["a listed user id of 129 characters", `/subscribe?users=ann,${"u".repeat(129)}`],
    ["a user id with a NUL", "/subscribe/ann%00"],
    ["a listed user id with a NUL", "/subscribe?users=ann,b%00b"],
    ["a broken escape", "/subscribe/%E0%A4%A"],
  ])("%s is 400, which any page may read", async (_what, path) => {
    const answer = await app.fetch(path, { signal: AbortSignal.timeout(2000) });
    expect(answer.headers.get("access-control-allow-origin")).toBe("*");
    expect((await refusalOf(answer))[0]).toBe(400);
  });

  test("a browser's preflight is allowed what a client that resumes needs", async () => {
    const answer = await app.fetch("/subscribe/ann", {
      method: "OPTIONS",
      headers: { origin: "https://app.example", "access-control-request-method": "GET" },
    });
    expect([answer.status, answer.headers.get("access-control-allow-origin")]).toEqual([204, "*"]);
    const allowed = answer.headers.get("access-control-allow-headers")?.toLowerCase();
    for (const header of ["authorization", "last-event-id"]) expect(allowed).toContain(header);
  });

  test("each event to each subscriber is counted", async () => {
    const userid = aUser();
    using first = await EventStream.open(app, `/subscribe/${userid}`);
    using second = await EventStream.open(app, `/subscribe/${userid}`);
    const series = "floodgate_presence_deliveries_total";
    await ping(app, { userid, status: "0" });
    for (const stream of [first, second]) await stream.presence();
    const before = await metric(app, series);
    for (let sent = 0; sent < 3; sent++) {
      await ping(app, { userid, status: "0" });
      for (const stream of [first, second]) await stream.presence();
    }
    expect(await metric(app, series)).toBe(before + 6);
  });

  test.each(["POST", "PUT", "DELETE"])("%s is 405", async (method) => {
    for (const path of ["/subscribe/ann", "/subscribe/ann/client/phone", watching("ann")])
      expect((await app.fetch(path, { method })).status).toBe(405);
  });

  test("who leaves is no longer counted, however it leaves", async () => {
    await eventually("no streams of other tests", async () => (await streams()) === 0);
    const users = [aUser(), aUser()];
    using stays = await EventStream.open(app, watching(...users));
    const leaving = [
      await EventStream.open(app, watching(...users)),
      await EventStream.open(app, `/subscribe/${users[0]}`),
    ];
    expect(await streams()).toBe(3);
    for (const stream of leaving) stream[Symbol.dispose]();
    await eventually("one stream", async () => (await streams()) === 1, 3000);
    for (const userid of users) {
      await ping(app, { userid, status: "0" });
      expect((await stays.presence()).userid).toBe(userid);
    }
  });

  test("who leaves before the answer leaves no subscriber", async () => {
    await eventually("no streams of other tests", async () => (await streams()) === 0);
    for (let client = 0; client < 40; client++) {
      using connection = await RawConnection.open(app.url);
      connection.head(`GET /subscribe/${aUser()}`);
      for (let turn = 0; turn < client % 8; turn++) await Bun.sleep(0);
    }
    await eventually("no streams", async () => (await streams()) === 0, 2000);
  });

  test("a HEAD is answered like a GET and leaves no subscriber", async () => {
    await eventually("no streams of other tests", async () => (await streams()) === 0);
    using connection = await RawConnection.open(app.url);
    for (const path of [`/subscribe/${aUser()}`, watching(aUser())]) {
      connection.head(`HEAD ${path}`);
      const { status, headers } = await connection.response({ bodyless: true });
      expect(status).toBe(200);
      expect(headers.get("content-type")).toMatch(/^text\/event-stream\b/);
    }
    // The connection is free for the next request: no stream goes on behind the answer.
    connection.head("GET /livez");
    expect((await connection.response()).status).toBe(200);
    await eventually("no streams", async () => (await streams()) === 0, 2000);
  });
});
