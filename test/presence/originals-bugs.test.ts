import { expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { EventStream } from "../support/event-stream.ts";
import { eventually, timed } from "../support/eventually.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { aUser, claim, fat, flood, ping, pingAnswer } from "../support/presence.ts";

// What the service that this one replaces got wrong, by the numbers of the contract. No. 6, fan-out over processes, is among the tests with several.

const clock = new FakeClock();
const app = TestApp.forTests({ clock });

test("1: the cached ping is sent to who subscribes later", async () => {
  const userid = aUser();
  await ping(app, { userid, clientid: "phone", status: "1" });
  using stream = await EventStream.open(app, `/subscribe/${userid}/client/desk`);
  expect(await stream.presence()).toMatchObject({ userid, time: clock.epochS, status: "1" });
});

test("2: the first subscriber of a user that nobody knows is served", async () => {
  const userid = aUser();
  using first = await EventStream.open(app, `/subscribe/${userid}/client/phone`);
  using second = await EventStream.open(app, `/subscribe/${userid}/client/desk`);
  await ping(app, { userid, status: "0" });
  for (const stream of [first, second]) expect((await stream.presence()).userid).toBe(userid);
});

test("3: subscribers that come and go while others ping disturb nothing", async () => {
  const userid = aUser();
  using stays = await EventStream.open(app, `/subscribe/${userid}`);
  const coming = Array.from({ length: 8 }, async () => {
    for (let turn = 0; turn < 20; turn++) {
      using stream = await EventStream.open(app, `/subscribe/${userid}`);
      if (turn % 4 === 0) continue;
      await ping(app, { userid, status: "0" });
      await stream.presence();
    }
  });
  const pings = Array.from({ length: 300 }, () => ({ userid, status: "0" }));
  await Promise.all([flood(app, pings), ...coming]);
  await ping(app, { userid, status: "done" });
  await eventually(
    "the last event",
    () => stays.events.at(-1)?.data.includes('"status":"done"') === true,
  );
});

test("4: a subscriber that does not read holds up no ping", async () => {
  const userid = aUser().padEnd(128, fat(128));
  using slow = await EventStream.open(app, `/subscribe/${encodeURIComponent(userid)}`);
  slow.pause();
  const pings = Array.from({ length: 4000 }, () => ({
    userid,
    clientid: fat(128),
    status: fat(64),
  }));
  await flood(app, pings);
  const { ms } = await timed(async () => await pingAnswer(app, { userid, status: "0" }));
  expect(ms).toBeLessThan(500);
});

test("5: the comment that keeps the stream open is sent, not held", async () => {
  using stream = await EventStream.open(app, `/subscribe/${aUser()}`);
  const before = stream.comments.length;
  clock.advance(25_000);
  await eventually("a comment", () => stream.comments.length === before + 1, 2000);
});

test("7: who is silent goes offline", async () => {
  const userid = aUser();
  using stream = await EventStream.open(app, `/subscribe/${userid}`);
  await ping(app, { userid, clientid: "phone", status: "0" });
  expect((await stream.presence()).online).toBe(true);
  clock.advance(61_000);
  expect(await stream.presence()).toMatchObject({ userid, online: false });
});

test("8: a user's devices do not overwrite one another", async () => {
  const userid = aUser();
  using stream = await EventStream.open(app, `/subscribe/${userid}`);
  await ping(app, { userid, clientid: "phone", status: "0" });
  expect((await stream.presence()).status).toBe("0");
  await ping(app, { userid, clientid: "desk", status: "1" });
  expect((await stream.presence()).status).toBe("0");
});

test("9: an invisible user is not broadcast", async () => {
  const userid = aUser();
  using stream = await EventStream.open(app, `/subscribe/${userid}`);
  await ping(app, { userid, clientid: "phone", status: "3" });
  clock.advance(5000);
  await ping(app, { userid, clientid: "phone", status: "3" });
  await ping(app, { userid, clientid: "phone", status: "0" });
  expect(await stream.presence()).toMatchObject({ status: "0", online: true });
  expect(stream.waiting).toBe(0);
});

test("10: a claim is believed from a trusted proxy alone", async () => {
  const env = { TRUSTED_PROXIES: "192.0.2.0/24" };
  await using strict = await TestApp.start({ env });
  const body = '{"status":"0"}';
  expect((await strict.post("/ping", body, claim("ann"))).status).toBe(401);
  const forwarded = { ...claim("ann"), "x-forwarded-for": "192.0.2.1" };
  expect((await strict.post("/ping", body, forwarded)).status).toBe(401);
  expect((await app.post("/ping", body, claim("ann"))).status).toBe(200);
});
