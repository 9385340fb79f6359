import { expect, test } from "bun:test";

import { backoff, parseRetryAfter } from "../../src/push/backoff.ts";
import { type Outcome } from "../../src/push/outcome.ts";
import { eventually, timed } from "../support/eventually.ts";
import { CAMPAIGN, tally, TestSender } from "../support/push-sender.ts";
import {
  apnsConfig,
  apnsError,
  apnsTarget,
  fcmConfig,
  fcmError,
  fcmTarget,
  OK,
  PushServer,
  TokenServer,
} from "../support/push-servers.ts";

test("Retry-After is read as seconds or as a date", () => {
  const nowMs = Date.parse("2026-11-22T10:00:00Z");
  expect(parseRetryAfter("7", nowMs)).toBe(7000);
  expect(parseRetryAfter("Sun, 22 Nov 2026 10:01:30 GMT", nowMs)).toBe(90_000);
  expect(parseRetryAfter("Sun, 22 Nov 2026 09:00:00 GMT", nowMs)).toBe(0);
  for (const odd of [undefined, "", "soon", "1e99", "99999999999999"])
    expect(parseRetryAfter(odd, nowMs)).toBeUndefined();
});

test("the backoff doubles up to its cap and half of it is random", () => {
  for (let failures = 1; failures <= 40; failures++) {
    const full = Math.min(100 * 2 ** (failures - 1), 3000);
    const delayMs = backoff(failures, { baseMs: 100, capMs: 3000 });
    expect(delayMs).toBeGreaterThanOrEqual(full / 2);
    expect(delayMs).toBeLessThanOrEqual(full);
  }
});

test("one Retry-After holds back everybody until it is over", async () => {
  let askedMs = Infinity;
  const early: number[] = [];
  await using apns = await PushServer.start(({ number }) => {
    if (number === 1) {
      askedMs = performance.now();
      return { ...apnsBusy(), headers: { "retry-after": "1" } };
    }
    const afterMs = performance.now() - askedMs;
    if (afterMs < 990) early.push(afterMs);
    return OK;
  });
  await using sender = new TestSender({ apns: apnsConfig(apns.url) });
  const first = sender.sendTo(apnsTarget(0));
  await eventually("it is asked to wait", () => askedMs < Infinity);
  await Bun.sleep(20);
  const others = Array.from({ length: 500 }, (_, n) => sender.sendTo(apnsTarget(n + 1)));
  expect(tally(await Promise.all([first, ...others]))).toEqual({ sent: 501 });
  expect(early).toEqual([]);
});

const WAIT = { "retry-after": "1" };
const GOOGLE_BUSY = { code: 429, status: "RESOURCE_EXHAUSTED", errorCode: "QUOTA_EXCEEDED" };

const LIMITED = [
  ["FCM", fcmTarget, fcmError({ ...GOOGLE_BUSY, retryAfter: "1" })],
  ["APNs", apnsTarget, { ...apnsError(429, "TooManyRequests"), headers: WAIT }],
] as const;
for (const [name, target, limit] of LIMITED)
  test(`a single 429 of ${name} with Retry-After holds back its device, and nobody else`, async () => {
    const cameMs: number[] = [];
    const { token } = target(0);
    await using server = await PushServer.start(({ body, path }) => {
      if (!body.includes(`${token}"`) && !path.endsWith(token)) return OK;
      cameMs.push(performance.now());
      return cameMs.length === 1 ? limit : OK;
    });
    await using tokens = new TokenServer();
    await using sender = new TestSender({
      fcm: fcmConfig(server.url, tokens.url),
      apns: apnsConfig(server.url),
    });
    const limited = sender.sendTo(target(0));
    await eventually("it is asked to wait", () => cameMs.length === 1);
    await Bun.sleep(20);
    const { result, ms } = await timed(() =>
      Promise.all(Array.from({ length: 200 }, (_, n) => sender.sendTo(target(n + 1)))),
    );
    expect(tally(result)).toEqual({ sent: 200 });
    expect(ms).toBeLessThan(700);
    expect(await limited).toEqual({ kind: "sent" });
    const [firstMs = 0, secondMs = 0] = cameMs;
    expect(secondMs - firstMs).toBeGreaterThan(990);
  });

test("while most devices are served, no number of limited ones stops the others", async () => {
  // Each third device, one after the other.
  await using fcm = await PushServer.start(({ body }) =>
    /:\d*[036]"/.test(body) ? fcmError({ ...GOOGLE_BUSY, retryAfter: "5" }) : OK,
  );
  await using tokens = new TokenServer();
  await using sender = new TestSender(
    { fcm: fcmConfig(fcm.url, tokens.url) },
    { persistence: { deadlineMs: 2000 } },
  );
  const { result, ms } = await timed(async () => {
    const outcomes: Outcome[] = [];
    for (let n = 0; n < 200; n++) outcomes.push(await sender.sendTo(fcmTarget(n)));
    return outcomes;
  });
  expect(tally(result)).toEqual({ sent: 140, failed: 60 });
  expect(ms).toBeLessThan(2000);
});

test("a device that is limited time and again stops no others", async () => {
  await using fcm = await PushServer.start(({ body }) =>
    body.includes('fcm-token:0"') ? fcmError({ ...GOOGLE_BUSY, retryAfter: "0" }) : OK,
  );
  await using tokens = new TokenServer();
  await using sender = new TestSender(
    { fcm: fcmConfig(fcm.url, tokens.url) },
    {
      persistence: {
        attempts: 30,
        backoff: { baseMs: 1, capMs: 1 },
        quotaBackoff: { baseMs: 1, capMs: 1 },
      },
    },
  );
  expect((await sender.sendTo(fcmTarget(0))).kind).toBe("failed");
  fcm.react = ({ body }) =>
    body.includes('fcm-token:0"') ? fcmError({ ...GOOGLE_BUSY, retryAfter: "2" }) : OK;
  const stop = new AbortController();
  const limited = sender.send(fcmTarget(0), sender.prepare(CAMPAIGN), stop.signal);
  const settled = Promise.allSettled([limited]);
  await eventually("it is asked to wait", () => fcm.received.length === 31);
  await Bun.sleep(20);
  const { ms } = await timed(() => sender.sendTo(fcmTarget(1)));
  expect(ms).toBeLessThan(1000);
  stop.abort();
  await settled;
});

test("when device after device is limited it is the provider, and everybody waits", async () => {
  let lastMs = 0;
  let early = 0;
  await using fcm = await PushServer.start(({ number }) => {
    if (number <= 20) {
      lastMs = performance.now();
      return fcmError({ ...GOOGLE_BUSY, retryAfter: "1" });
    }
    if (performance.now() - lastMs < 990) early += 1;
    return OK;
  });
  await using tokens = new TokenServer();
  await using sender = new TestSender({ fcm: fcmConfig(fcm.url, tokens.url) });
  const limited = Array.from({ length: 20 }, (_, n) => sender.sendTo(fcmTarget(n)));
  await eventually("all are asked to wait", () => fcm.received.length === 20);
  await Bun.sleep(20);
  const others = Array.from({ length: 100 }, (_, n) => sender.sendTo(fcmTarget(100 + n)));
  expect(tally(await Promise.all([...limited, ...others]))).toEqual({ sent: 120 });
  expect(early).toBe(0);
});

test("what APNs says of a device's rate is never taken for the provider's", async () => {
  await using apns = await PushServer.start(() => ({
    ...apnsError(429, "TooManyRequests"),
    headers: WAIT,
  }));
  await using sender = new TestSender({ apns: apnsConfig(apns.url) });
  const stop = new AbortController();
  const message = sender.prepare(CAMPAIGN);
  const limited = Array.from({ length: 50 }, (_, n) =>
    sender.send(apnsTarget(n), message, stop.signal),
  );
  const settled = Promise.allSettled(limited);
  await eventually("all are asked to wait", () => apns.received.length === 50);
  await Bun.sleep(20);
  apns.react = () => OK;
  const { ms } = await timed(() => sender.sendTo(apnsTarget(99)));
  expect(ms).toBeLessThan(500);
  stop.abort();
  await settled;
});

test("too many tokens of the provider's is a matter of all its devices", async () => {
  await using apns = await PushServer.start(({ number }) =>
    number === 1 ? { ...apnsError(429, "TooManyProviderTokenUpdates"), headers: WAIT } : OK,
  );
  await using sender = new TestSender({ apns: apnsConfig(apns.url) });
  const first = sender.sendTo(apnsTarget(0));
  await eventually("it is asked to wait", () => apns.received.length === 1);
  await Bun.sleep(20);
  const { wallMs } = await timed(() => sender.sendTo(apnsTarget(1)));
  expect(wallMs).toBeGreaterThan(900);
  expect(await first).toEqual({ kind: "sent" });
});

test("the signal ends waiting, whether for the next attempt or for the provider's pause", async () => {
  await using apns = await PushServer.start(() => ({
    ...apnsBusy(),
    headers: { "retry-after": "60" },
  }));
  await using sender = new TestSender({ apns: apnsConfig(apns.url) });
  const message = sender.prepare(CAMPAIGN);
  const stop = new AbortController();
  const sending = [1, 2, 3].map((n) => sender.send(apnsTarget(n), message, stop.signal));
  const settled = Promise.allSettled(sending);
  await eventually("it is asked to wait", () => apns.received.length > 0);
  await Bun.sleep(50);
  const reason = new Error("stopped");
  stop.abort(reason);
  for (const result of await settled) expect(result).toEqual({ status: "rejected", reason });
});

test("a signal that was aborted before sends nothing; a request that is out is waited for", async () => {
  await using apns = await PushServer.start(() => ({ status: 200, delayMs: 50 }));
  await using sender = new TestSender({ apns: apnsConfig(apns.url) });
  const message = sender.prepare(CAMPAIGN);
  const stop = new AbortController();
  const sending = sender.send(apnsTarget(1), message, stop.signal);
  await eventually("it is out", () => apns.received.length === 1);
  stop.abort();
  expect(await sending).toEqual({ kind: "sent" });
  const late = await Promise.allSettled([sender.send(apnsTarget(2), message, stop.signal)]);
  expect(late[0].status).toBe("rejected");
  expect(apns.received).toHaveLength(1);
});

test("neither tokens nor keys are in the log or in reasons", async () => {
  await using apns = await PushServer.start(({ number }) =>
    number % 3 === 0 ? "kill session" : apnsError(503, "ServiceUnavailable"),
  );
  await using sender = new TestSender({ apns: apnsConfig(apns.url) });
  const outcome = await sender.sendTo({ ...apnsTarget(), token: "5ec7e7abc" });
  expect(outcome.kind).toBe("failed");
  expect(sender.logged.length).toBeGreaterThan(0);
  expect([JSON.stringify(outcome), ...sender.logged].join()).not.toMatch(
    /5ec7e7abc|PRIVATE|bearer|eyJ/i,
  );
});

function apnsBusy() {
  return { status: 503, body: JSON.stringify({ reason: "ServiceUnavailable" }) };
}
