import { expect, test } from "bun:test";

import { backoff, parseRetryAfter } from "../../src/push/pacing.ts";
import { eventually } from "../support/eventually.ts";
import { CAMPAIGN, tally, TestSender } from "../support/push-sender.ts";
import { apnsConfig, apnsError, apnsTarget, OK, PushServer } from "../support/push-servers.ts";

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
