import { describe, expect, test } from "bun:test";

import { refusalOf } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { aUser, ping, snapshot } from "../support/presence.ts";

const NEVER_SEEN = { time: null, status: null, online: false };

const clock = new FakeClock();
const app = TestApp.forTests({ clock });

describe("the snapshot", () => {
  test("has the state of each user, and nothing of who was never seen", async () => {
    const [ann, bob, eve] = [aUser("ann"), aUser("bob"), aUser("eve")];
    await ping(app, { userid: ann, clientid: "phone", status: "0" });
    const time = clock.epochS;
    clock.advance(61_000);
    await ping(app, { userid: eve, clientid: "phone", status: "brb" });
    const answer = await app.fetch(`/presence?users=${ann},${bob},${eve}`);
    expect([answer.status, await answer.json()]).toEqual([
      200,
      {
        [ann]: { time, status: "0", online: false },
        [bob]: NEVER_SEEN,
        [eve]: { time: clock.epochS, status: "brb", online: true },
      },
    ]);
    expect(answer.headers.get("content-type")).toMatch(/^application\/json\b/);
    expect(answer.headers.get("access-control-allow-origin")).toBe("*");
  });

  test("is of the present, however often it is asked for", async () => {
    const userid = aUser();
    for (const status of ["0", "1", "2", "brb"]) {
      await ping(app, { userid, status });
      expect(await snapshot(app, [userid])).toMatchObject({ [userid]: { status, online: true } });
    }
    clock.advance(61_000);
    // Also before the server has looked for who expired.
    expect(await snapshot(app, [userid])).toMatchObject({ [userid]: { online: false } });
  });

  test.each([
    "ü€😀",
    "with space",
    "a/b",
    "50%",
    "a+b",
    "a&b=c",
    "__proto__",
    "constructor",
    "toString",
    "hasOwnProperty",
    "u".repeat(128),
  ])("may be of the user %p", async (userid) => {
    const [before] = Object.entries(await snapshot(app, [userid]));
    expect(before).toEqual([userid, NEVER_SEEN]);
    await ping(app, { userid, status: "1" });
    expect(Object.entries(await snapshot(app, [userid]))).toEqual([
      [userid, { time: clock.epochS, status: "1", online: true }],
    ]);
  });

  test("has each user once, however often it is named", async () => {
    const [ann, bob] = [aUser("ann"), aUser("bob")];
    const named = Array.from({ length: 150 }, () => [ann, bob]).flat();
    expect(await snapshot(app, named)).toEqual({ [ann]: NEVER_SEEN, [bob]: NEVER_SEEN });
  });

  test("may be of 200 users", async () => {
    const users = Array.from({ length: 200 }, () => aUser());
    expect(Object.keys(await snapshot(app, users))).toHaveLength(200);
  });
});

describe("around the route", () => {
  test("201 users are refused, which names the limit", async () => {
    const users = Array.from({ length: 201 }, () => aUser());
    const [status, text] = await refusalOf(app.fetch(`/presence?users=${users.join(",")}`));
    expect(status).toBe(400);
    expect(text).toContain("200");
  });

  test.each([
    ["no users", "/presence"],
    ["an empty list", "/presence?users="],
    ["a list of nothing", "/presence?users=,,"],
    ["a user id of 129 characters", `/presence?users=${"u".repeat(129)}`],
    ["a user id with a NUL", "/presence?users=ann,b%00b"],
  ])("%s is 400, which any page may read", async (_what, path) => {
    const answer = await app.fetch(path);
    expect(answer.headers.get("access-control-allow-origin")).toBe("*");
    expect((await refusalOf(answer))[0]).toBe(400);
  });

  test("a HEAD has the headers alone, another method is 405", async () => {
    const head = await app.fetch("/presence?users=ann", { method: "HEAD" });
    expect([head.status, await head.text()]).toEqual([200, ""]);
    for (const method of ["POST", "PUT", "DELETE"])
      expect((await app.fetch("/presence?users=ann", { method })).status).toBe(405);
  });
});
