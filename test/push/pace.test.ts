import { expect, test } from "bun:test";

import { SendRate } from "../../src/push/send-rate.ts";
import { eventually, timed } from "../support/eventually.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { CAMPAIGN, tally, TestSender } from "../support/push-sender.ts";
import {
  apnsConfig,
  apnsError,
  apnsTarget,
  fcmConfig,
  fcmTarget,
  OK,
  PushServer,
  TokenServer,
} from "../support/push-servers.ts";
import { TcpProxy } from "../support/tcp-proxy.ts";

const NEVER = new AbortController().signal;

const sendMany = (sender: TestSender, count: number) =>
  Promise.all(Array.from({ length: count }, (_, n) => sender.sendTo(apnsTarget(n))));

/** When each request came. */
function times(react: (number: number) => ReturnType<typeof apnsError>) {
  const cameMs: number[] = [];
  return {
    cameMs,
    spanMs: () => (cameMs.at(-1) ?? 0) - (cameMs[0] ?? 0),
    react: ({ number }: { number: number }) => {
      cameMs.push(performance.now());
      return react(number);
    },
  };
}

test.each([
  [1, 1],
  [50, 1],
  [1000, 20],
  [10_000, 200],
])("at %d a second at most %d go at once, however long nobody went", async (...given) => {
  const [perSecond, burst] = given;
  const clock = new FakeClock();
  const closing = new AbortController();
  const rate = new SendRate(perSecond, clock, closing.signal);
  clock.advance(60_000);
  let atOnce = 0;
  let waiting = rate.turn(NEVER);
  for (; waiting === undefined; waiting = rate.turn(NEVER)) atOnce += 1;
  // A rounding error may cost one.
  expect(atOnce).toBeWithin(Math.max(1, burst - 1), burst + 1);
  closing.abort();
  expect((await Promise.allSettled([waiting]))[0].status).toBe("rejected");
});

test("turns come in the order in which they were asked for, and not sooner than the rate allows", async () => {
  const clock = new FakeClock();
  const rate = new SendRate(1000, clock, NEVER);
  const order: number[] = [];
  while (rate.turn(NEVER) === undefined);
  const turns = Array.from({ length: 40 }, async (_, n) => {
    await rate.turn(NEVER);
    order.push(n);
  });
  await Bun.sleep(20);
  expect(order).toEqual([]);
  clock.advance(11);
  await eventually("ten went", () => order.length >= 10);
  await Bun.sleep(20);
  expect(order.length).toBeLessThanOrEqual(11);
  await eventually("all went", () => {
    clock.advance(5);
    return order.length === 40;
  });
  await Promise.all(turns);
  expect(order).toEqual(Array.from({ length: 40 }, (_, n) => n));
});

test("all attempts keep to the rate, those behind a pause and those that are repeated too", async () => {
  const seen = times((number) => {
    if (number === 1) return { ...apnsError(503, "Shutdown"), headers: { "retry-after": "1" } };
    return number <= 200 ? apnsError(500, "InternalServerError") : OK;
  });
  await using apns = await PushServer.start(seen.react);
  await using sender = new TestSender({ apns: apnsConfig(apns.url), perSecond: 500 });
  const first = sender.sendTo(apnsTarget(9999));
  await eventually("it is asked to wait", () => apns.received.length === 1);
  await Bun.sleep(20);
  expect(tally([...(await sendMany(sender, 200)), await first])).toEqual({ sent: 201 });
  seen.cameMs.shift();
  expect(apns.received.length).toBeGreaterThan(380);
  expect(seen.spanMs()).toBeGreaterThan(((380 - 10) / 500) * 1000);
});

test("what waited for a provider to come back goes out at the rate", async () => {
  const seen = times(() => OK);
  await using apns = await PushServer.start(seen.react);
  await using proxy = await TcpProxy.open(apns.url);
  await proxy.refuse();
  await using sender = new TestSender({
    apns: apnsConfig(proxy.urlOf(apns.url)),
    perSecond: 200,
  });
  const sending = sendMany(sender, 100);
  await Bun.sleep(500);
  await proxy.restore();
  expect(tally(await sending)).toEqual({ sent: 100 });
  expect(seen.spanMs()).toBeGreaterThan(((100 - 4) / 200) * 1000 - 20);
});

test("both providers together keep to the rate", async () => {
  const seen = times(() => OK);
  await using server = await PushServer.start(seen.react);
  await using tokens = new TokenServer();
  await using sender = new TestSender({
    apns: apnsConfig(server.url),
    fcm: fcmConfig(server.url, tokens.url),
    perSecond: 200,
  });
  const sends = Array.from({ length: 100 }, (_, n) =>
    sender.sendTo(n % 2 === 0 ? apnsTarget(n) : fcmTarget(n)),
  );
  expect(tally(await Promise.all(sends))).toEqual({ sent: 100 });
  expect(seen.spanMs()).toBeGreaterThan(((100 - 4) / 200) * 1000 - 20);
});

test("whoever is sent nothing takes no turn", async () => {
  await using apns = await PushServer.start();
  await using sender = new TestSender({ apns: apnsConfig(apns.url), perSecond: 1 });
  const { ms } = await timed(async () => {
    for (let n = 0; n < 50; n++) {
      const outcome = await sender.sendTo({ ...apnsTarget(n), token: "no token" });
      expect(outcome.kind).toBe("invalid_token");
    }
    expect(await sender.sendTo(apnsTarget())).toEqual({ kind: "sent" });
  });
  expect(ms).toBeLessThan(900);
});

test("whoever waits for a turn when the provider asks for a pause waits for its end", async () => {
  let askedMs = Infinity;
  let early = 0;
  await using apns = await PushServer.start(({ number }) => {
    if (number === 1) {
      askedMs = performance.now();
      return { ...apnsError(503, "Shutdown"), headers: { "retry-after": "1" } };
    }
    if (performance.now() - askedMs < 990) early += 1;
    return OK;
  });
  await using sender = new TestSender({ apns: apnsConfig(apns.url), perSecond: 50 });
  expect(tally(await sendMany(sender, 20))).toEqual({ sent: 20 });
  // One may have been on its way.
  expect(early).toBeLessThanOrEqual(1);
});

test("the time until its turn counts against no push", async () => {
  await using apns = await PushServer.start();
  await using sender = new TestSender(
    { apns: apnsConfig(apns.url), perSecond: 20 },
    { persistence: { deadlineMs: 200 } },
  );
  expect(tally(await sendMany(sender, 15))).toEqual({ sent: 15 });
});

test("thousands that wait for their turns end at once with their signal, and others go on", async () => {
  await using apns = await PushServer.start();
  await using sender = new TestSender({ apns: apnsConfig(apns.url), perSecond: 1 });
  const message = sender.prepare(CAMPAIGN);
  await sender.sendTo(apnsTarget());
  const [stop, other] = [new AbortController(), new AbortController()];
  const sends = Array.from({ length: 5000 }, (_, n) =>
    sender.send(apnsTarget(n), message, stop.signal),
  );
  const going = sender.send(apnsTarget(1), message, other.signal);
  const settled = Promise.allSettled(sends);
  await Bun.sleep(20);
  const reason = new Error("stopped");
  const { result, ms } = await timed(async () => {
    stop.abort(reason);
    return await settled;
  });
  expect(result.every((one) => one.status === "rejected" && one.reason === reason)).toBe(true);
  expect(ms).toBeLessThan(200);
  expect(await going).toEqual({ kind: "sent" });
  expect(apns.received).toHaveLength(2);
});

test("thousands that wait for their turns end at once with the sender", async () => {
  await using apns = await PushServer.start();
  const sender = new TestSender({ apns: apnsConfig(apns.url), perSecond: 1 });
  await sender.sendTo(apnsTarget());
  const settled = Promise.allSettled(
    Array.from({ length: 5000 }, (_, n) => sender.sendTo(apnsTarget(n))),
  );
  await Bun.sleep(20);
  const { ms } = await timed(async () => await sender[Symbol.asyncDispose]());
  expect((await settled).every(({ status }) => status === "rejected")).toBe(true);
  expect(ms).toBeLessThan(500);
});
