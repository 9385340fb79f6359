import { expect, test } from "bun:test";

import { decodeProtectedHeader, jwtVerify } from "jose";

import { FakeClock } from "../support/fake-clock.ts";
import { CAMPAIGN, TestSender } from "../support/push-sender.ts";
import {
  APNS_KEYS,
  apnsConfig,
  apnsError,
  apnsTarget,
  OK,
  PushServer,
} from "../support/push-servers.ts";

test("an accepted push was one request as Apple documents it", async () => {
  await using apns = await PushServer.start();
  await using sender = new TestSender({ apns: apnsConfig(apns.url) });
  const outcome = await sender.sendTo(apnsTarget(7), {
    imageUrl: "https://example.com/i.png",
    iconUrl: "https://example.com/icon.png",
    deepLink: "app://sale",
    title: "Größe «ß» \u{1f389}",
  });
  expect(outcome).toEqual({ kind: "sent" });
  expect(apns.received).toHaveLength(1);
  const { path, headers, body } = apns.received[0]!;
  expect(path).toBe(`/3/device/${apnsTarget(7).token}`);
  expect(headers).toMatchObject({
    ":method": "POST",
    "apns-id": apnsTarget(7).messageId,
    "apns-topic": "com.example.app",
    "apns-push-type": "alert",
    "apns-priority": "10",
    "apns-collapse-id": `${CAMPAIGN.uuid}-1`,
  });
  const expiresS = Number(headers["apns-expiration"]);
  expect(expiresS).toBeGreaterThan(Date.now() / 1000 + 3600);
  expect(JSON.parse(body)).toEqual({
    aps: {
      alert: { title: "Größe «ß» \u{1f389}", body: CAMPAIGN.body },
      sound: "default",
      "mutable-content": 1,
    },
    notification_uuid: CAMPAIGN.uuid,
    deep_link: "app://sale",
    image_url: "https://example.com/i.png",
    icon_url: "https://example.com/icon.png",
  });
});

test("what a campaign does not have is not in the payload", async () => {
  await using apns = await PushServer.start();
  await using sender = new TestSender({ apns: apnsConfig(apns.url) });
  await sender.sendTo(apnsTarget());
  expect(JSON.parse(apns.received[0]!.body)).toEqual({
    aps: { alert: { title: CAMPAIGN.title, body: CAMPAIGN.body }, sound: "default" },
    notification_uuid: CAMPAIGN.uuid,
  });
});

test("the bearer is signed by the key, and one serves all pushes for 40 minutes", async () => {
  await using apns = await PushServer.start();
  const clock = new FakeClock();
  await using sender = new TestSender({ apns: apnsConfig(apns.url) }, { clock });
  await Promise.all(Array.from({ length: 20 }, (_, n) => sender.sendTo(apnsTarget(n))));
  clock.advance(39 * 60_000);
  await sender.sendTo(apnsTarget());
  const bearers = new Set(apns.received.map(({ headers }) => headers.authorization));
  expect(bearers.size).toBe(1);
  clock.advance(2 * 60_000);
  await sender.sendTo(apnsTarget());
  expect(apns.received.at(-1)?.headers.authorization).not.toBe([...bearers][0]);
  const [, jwt = ""] = /^bearer (.*)$/.exec([...bearers][0] ?? "") ?? [];
  expect(decodeProtectedHeader(jwt)).toEqual({ alg: "ES256", kid: "ABC123DEFG" });
  const { payload } = await jwtVerify(jwt, APNS_KEYS.publicKey);
  expect(payload.iss).toBe("DEF123GHIJ");
  expect(Math.abs((payload.iat ?? 0) - Date.now() / 1000)).toBeLessThan(60);
});

const verdicts = [
  [410, "Unregistered", "invalid_token"],
  [410, "ExpiredToken", "invalid_token"],
  [400, "BadDeviceToken", "invalid_token"],
  [400, "DeviceTokenNotForTopic", "failed"],
  [400, "BadTopic", "refused"],
  [400, "MissingTopic", "refused"],
  [400, "TopicDisallowed", "refused"],
  [400, "BadCertificateEnvironment", "refused"],
  [403, "InvalidProviderToken", "refused"],
  [403, "MissingProviderToken", "refused"],
  [403, "Forbidden", "refused"],
  [403, "BadCertificate", "refused"],
  [413, "PayloadTooLarge", "refused"],
  [400, "PayloadEmpty", "failed"],
  [400, "BadMessageId", "failed"],
  [404, "BadPath", "failed"],
  [405, "MethodNotAllowed", "failed"],
] as const;

for (const [status, reason, kind] of verdicts)
  test(`${status} ${reason} is ${kind}, ${kind === "refused" ? "if it lasts" : "after one request"}`, async () => {
    await using apns = await PushServer.start(() => apnsError(status, reason));
    await using sender = new TestSender({ apns: apnsConfig(apns.url) });
    const outcome = await sender.sendTo(apnsTarget());
    expect(outcome).toMatchObject({ kind, reason: `APNs ${status} ${reason}` });
    expect(apns.received).toHaveLength(kind === "refused" ? 6 : 1);
  });

test("410 tells since when the token is invalid", async () => {
  await using apns = await PushServer.start(() =>
    apnsError(410, "Unregistered", 1_700_000_000_123),
  );
  await using sender = new TestSender({ apns: apnsConfig(apns.url) });
  expect(await sender.sendTo(apnsTarget())).toEqual({
    kind: "invalid_token",
    reason: "APNs 410 Unregistered",
    timestamp: 1_700_000_000_123,
  });
});

const transient = [
  [429, "TooManyRequests"],
  [429, "TooManyProviderTokenUpdates"],
  [500, "InternalServerError"],
  [503, "ServiceUnavailable"],
  [503, "Shutdown"],
] as const;

for (const [status, reason] of transient)
  test(`${status} ${reason} is tried again with the same ids, and at last failed`, async () => {
    await using apns = await PushServer.start(({ number }) =>
      number <= 2 ? apnsError(status, reason) : OK,
    );
    await using sender = new TestSender({ apns: apnsConfig(apns.url) });
    expect(await sender.sendTo(apnsTarget())).toEqual({ kind: "sent" });
    const ids = apns.received.map(({ headers }) =>
      JSON.stringify([headers["apns-id"], headers["apns-collapse-id"]]),
    );
    expect(ids).toHaveLength(3);
    expect(new Set(ids).size).toBe(1);
    apns.react = () => apnsError(status, reason);
    expect(await sender.sendTo(apnsTarget(2))).toEqual({
      kind: "failed",
      reason: `APNs ${status} ${reason}`,
    });
    expect(apns.received).toHaveLength(3 + 8);
  });

test("an expired bearer is renewed once for all, and one that is expired at once refuses", async () => {
  const good = new Set<string>();
  await using apns = await PushServer.start(({ headers }) =>
    good.has(headers.authorization ?? "") ? OK : apnsError(403, "ExpiredProviderToken"),
  );
  const clock = new FakeClock();
  await using sender = new TestSender({ apns: apnsConfig(apns.url) }, { clock });
  expect(await sender.sendTo(apnsTarget())).toEqual({
    kind: "refused",
    reason: "APNs 403 ExpiredProviderToken",
  });
  const refused = new Set(apns.received.map(({ headers }) => headers.authorization));
  clock.advance(1000);
  apns.react = ({ headers }) =>
    refused.has(headers.authorization) ? apnsError(403, "ExpiredProviderToken") : OK;
  const outcomes = await Promise.all(
    Array.from({ length: 50 }, (_, n) => sender.sendTo(apnsTarget(n))),
  );
  expect(outcomes.every(({ kind }) => kind === "sent")).toBe(true);
  const renewed = new Set(apns.received.map(({ headers }) => headers.authorization)).difference(
    refused,
  );
  expect(renewed.size).toBe(1);
});

test("a token that is no part of a path is invalid without a request", async () => {
  await using apns = await PushServer.start();
  await using sender = new TestSender({ apns: apnsConfig(apns.url) });
  for (const token of ["", "../../x", "a b", "a/b", "a?b", "a\r\nb", "ü", "a".repeat(401)]) {
    const outcome = await sender.sendTo({ ...apnsTarget(), token });
    expect(outcome).toEqual({ kind: "invalid_token", reason: "not a token of APNs" });
  }
  expect(apns.received).toHaveLength(0);
});

test("a payload over 4,096 bytes is refused without a request", async () => {
  await using apns = await PushServer.start();
  await using sender = new TestSender({ apns: apnsConfig(apns.url) });
  const outcome = await sender.sendTo(apnsTarget(), { body: "ü".repeat(2048) });
  expect(outcome).toEqual({
    kind: "refused",
    reason: expect.stringMatching(
      /^the message takes \d+ bytes, more than the 4096 that APNs takes$/,
    ),
  });
  expect(apns.received).toHaveLength(0);
});

test("an answer that is no JSON, or an odd reason, tells nothing of its text", async () => {
  await using apns = await PushServer.start(() => ({ status: 400, body: "<html>secret</html>" }));
  await using sender = new TestSender({ apns: apnsConfig(apns.url) });
  expect(await sender.sendTo(apnsTarget())).toEqual({ kind: "failed", reason: "APNs 400" });
  apns.react = () => apnsError(400, `Bad token ${apnsTarget().token}`);
  expect(await sender.sendTo(apnsTarget())).toEqual({ kind: "failed", reason: "APNs 400" });
});

test("without credentials nothing can be sent, and the outcome says so", async () => {
  await using sender = new TestSender({});
  expect(sender.canSend).toEqual({ fcm: false, apns: false });
  expect(await sender.sendTo(apnsTarget())).toEqual({
    kind: "refused",
    reason: "there are no credentials for apns",
  });
});
