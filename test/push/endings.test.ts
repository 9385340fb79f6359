import { describe, expect, test } from "bun:test";

import { FakeClock } from "../support/fake-clock.ts";
import { eventually, timed } from "../support/eventually.ts";
import { tally, TestSender } from "../support/push-sender.ts";
import {
  apnsConfig,
  apnsError,
  apnsTarget,
  fcmConfig,
  fcmError,
  fcmTarget,
  OK,
  PushServer,
  type Reaction,
  TokenServer,
} from "../support/push-servers.ts";

const sendMany = (sender: TestSender, count: number) =>
  Promise.all(Array.from({ length: count }, (_, n) => sender.sendTo(apnsTarget(n))));

const warnings = ({ logged }: TestSender) =>
  logged
    .map((line): Record<string, unknown> => JSON.parse(line))
    .filter(({ level }) => level === 40);

describe("a provider that allows no streams", () => {
  test("fails the push in bounded time, and a warning tells", async () => {
    await using apns = await PushServer.start(() => OK, { streams: 0 });
    await using sender = new TestSender(
      { apns: apnsConfig(apns.url) },
      { limits: { connectMs: 50, waitMs: 150 }, persistence: { attempts: 2 } },
    );
    expect(tally(await sendMany(sender, 20))).toEqual({ failed: 20 });
    expect(warnings(sender)).toContainEqual(
      expect.objectContaining({ msg: "push provider away", why: "no streams within 50 ms" }),
    );
    expect(await sender.sendTo(apnsTarget())).toEqual({
      kind: "failed",
      reason: "apns: no streams within 50 ms",
    });
    expect(apns.received).toHaveLength(0);
    expect(apns.sessions).toBeGreaterThan(2);
  });

  test("gets what waits when it allows some after all", async () => {
    await using apns = await PushServer.start(() => OK, { streams: 0 });
    await using sender = new TestSender({ apns: apnsConfig(apns.url) });
    const sending = sendMany(sender, 20);
    await eventually("it is connected", () => apns.sessions > 0);
    await Bun.sleep(50);
    apns.allow(5);
    expect(tally(await sending)).toEqual({ sent: 20 });
  });

  test("after a while is left once it has answered what it had", async () => {
    await using apns = await PushServer.start(() => ({ status: 200, delayMs: 200 }));
    await using sender = new TestSender(
      { apns: apnsConfig(apns.url) },
      { limits: { connectMs: 50 } },
    );
    const sending = sendMany(sender, 10);
    await eventually("all arrived", () => apns.received.length === 10);
    apns.allow(0);
    expect(tally(await sending)).toEqual({ sent: 10 });
    expect(tally(await sendMany(sender, 10))).toEqual({ sent: 10 });
    expect(apns.received).toHaveLength(20);
  });
});

describe("the deadline of a push", () => {
  test("holds while it waits for room", async () => {
    await using apns = await PushServer.start(() => "stall", { streams: 1 });
    await using sender = new TestSender(
      { apns: apnsConfig(apns.url) },
      { limits: { sessionsMax: 2 }, persistence: { deadlineMs: 300, attempts: 1 } },
    );
    const stuck = Promise.allSettled([1, 2].map((n) => sender.sendTo(apnsTarget(n))));
    await eventually("all room is taken", () => apns.received.length === 2);
    const { result, ms } = await timed(() => sender.sendTo(apnsTarget(3)));
    expect(result).toEqual({ kind: "failed", reason: "apns: no connection had room in time" });
    expect(ms).toBeLessThan(1000);
    await sender[Symbol.asyncDispose]();
    await stuck;
  });

  test("holds while the token endpoint is out", async () => {
    await using fcm = await PushServer.start();
    await using tokens = new TokenServer();
    tokens.failure = () => new Response("down", { status: 503 });
    await using sender = new TestSender(
      { fcm: fcmConfig(fcm.url, tokens.url) },
      { persistence: { deadlineMs: 1500 } },
    );
    const { result, ms } = await timed(() => sender.sendTo(fcmTarget()));
    expect(result).toEqual({ kind: "failed", reason: "the token endpoint answered 503" });
    expect(ms).toBeLessThan(2500);
    expect(tokens.assertions.length).toBeGreaterThan(1);
  });

  test("holds while the provider asks for one pause after the other", async () => {
    await using apns = await PushServer.start(() => ({
      ...apnsError(503, "Shutdown"),
      headers: { "retry-after": "1" },
    }));
    await using sender = new TestSender(
      { apns: apnsConfig(apns.url) },
      { persistence: { deadlineMs: 1500 } },
    );
    const { result, ms } = await timed(() => sendMany(sender, 3));
    expect(tally(result)).toEqual({ failed: 3 });
    expect(ms).toBeLessThan(3500);
  });
});

const NAMED = '{"name":"projects/shop-123/messages/1"}';
const unended: [string, Reaction][] = [
  ["never ends", { status: 200, ending: "stall" }],
  ["breaks off", { status: 200, body: '{"na', ending: "reset" }],
  ["ends with its connection", { status: 200, body: '{"na', ending: "kill session" }],
  ["is all there but its end", { status: 200, body: NAMED, ending: "stall" }],
];
for (const [how, reaction] of unended)
  test(`a push that was answered 200 is sent, also where the answer ${how}`, async () => {
    await using server = await PushServer.start(() => reaction);
    await using tokens = new TokenServer();
    await using sender = new TestSender(
      { apns: apnsConfig(server.url), fcm: fcmConfig(server.url, tokens.url) },
      { limits: { streamMs: 100 } },
    );
    for (const target of [apnsTarget(), fcmTarget()])
      expect(await sender.sendTo(target)).toEqual({ kind: "sent" });
    expect(server.received).toHaveLength(2);
  });

test("a push that was answered 200 is sent, also where the sender is closed then", async () => {
  await using apns = await PushServer.start(() => ({ status: 200, ending: "stall" }));
  const sender = new TestSender({ apns: apnsConfig(apns.url) });
  const sending = sender.sendTo(apnsTarget());
  await eventually("it is out", () => apns.received.length === 1);
  await Bun.sleep(50);
  await sender[Symbol.asyncDispose]();
  expect(await sending).toEqual({ kind: "sent" });
});

test("why pushes fail is told, once in ten seconds for each reason and platform", async () => {
  const html = { status: 404, body: "<html>Not Found</html>" };
  await using server = await PushServer.start(() => html);
  await using tokens = new TokenServer();
  const clock = new FakeClock();
  await using sender = new TestSender(
    { apns: apnsConfig(server.url), fcm: fcmConfig(server.url, tokens.url) },
    { clock },
  );
  const failWith = async (reaction: Reaction) => {
    server.react = () => reaction;
    const targets = Array.from({ length: 50 }, (_, n) => [apnsTarget(n), fcmTarget(n)]).flat();
    const outcomes = await Promise.all(targets.map((target) => sender.sendTo(target)));
    expect(tally(outcomes)).toEqual({ failed: 100 });
    return warnings(sender)
      .map(({ platform, reason }) => `${String(platform)}: ${String(reason)}`)
      .toSorted();
  };
  const first = ["apns: APNs 404", "fcm: FCM 404"];
  expect(await failWith(html)).toEqual(first);
  clock.advance(9000);
  expect(await failWith(html)).toEqual(first);
  expect(await failWith(apnsError(400, "PayloadEmpty"))).toEqual(
    [...first, "apns: APNs 400 PayloadEmpty", "fcm: FCM 400"].toSorted(),
  );
  clock.advance(1000);
  expect(await failWith(html)).toHaveLength(6);
});

test("a provider that makes up reasons fills no log, and a token is none", async () => {
  let nth = 0;
  const letter = () => String.fromCharCode(97 + (nth++ % 26)).repeat(1 + nth / 26);
  await using apns = await PushServer.start(() => apnsError(400, letter()));
  await using sender = new TestSender({ apns: apnsConfig(apns.url) });
  expect(tally(await sendMany(sender, 500))).toEqual({ failed: 500 });
  expect(warnings(sender).length).toBeLessThanOrEqual(20);
  const { token } = apnsTarget(0xabc);
  apns.react = () => apnsError(400, token);
  expect(await sender.sendTo(apnsTarget())).toEqual({ kind: "failed", reason: "APNs 400" });
  apns.react = () => fcmError({ code: 404, status: token });
  expect(sender.logged.join()).not.toContain(token);
});
