import { expect, test } from "bun:test";

import { jwtVerify } from "jose";

import { FakeClock } from "../support/fake-clock.ts";
import { CAMPAIGN, tally, TestSender } from "../support/push-sender.ts";
import {
  fcmConfig,
  fcmError,
  fcmTarget,
  GOOGLE_KEYS,
  OK,
  PushServer,
  type Reaction,
  TokenServer,
} from "../support/push-servers.ts";

const RICH = {
  imageUrl: "https://example.com/i.png",
  iconUrl: "https://example.com/icon.png",
  deepLink: "https://example.com/sale",
  title: 'Say "hi" to Größe \u{1f389}',
};
const NOTIFICATION = { title: RICH.title, body: CAMPAIGN.body, image: RICH.imageUrl };
const DATA = {
  notification_uuid: CAMPAIGN.uuid,
  deep_link: RICH.deepLink,
  image_url: RICH.imageUrl,
  icon_url: RICH.iconUrl,
};
const COLLAPSE = `${CAMPAIGN.uuid}-1`;

async function start(react: () => Reaction = () => OK) {
  const fcm = await PushServer.start(react);
  const tokens = new TokenServer();
  return {
    fcm,
    tokens,
    config: { fcm: fcmConfig(fcm.url, tokens.url) },
    [Symbol.asyncDispose]: async () => {
      await fcm[Symbol.asyncDispose]();
      await tokens[Symbol.asyncDispose]();
    },
  };
}

test("an accepted push was one request for one token, with what an Android device shows", async () => {
  await using google = await start();
  await using sender = new TestSender(google.config);
  expect(await sender.sendTo(fcmTarget(), RICH)).toEqual({ kind: "sent" });
  expect(google.fcm.received).toHaveLength(1);
  const { path, headers, body } = google.fcm.received[0]!;
  expect(path).toBe("/v1/projects/shop-123/messages:send");
  expect(headers).toMatchObject({ ":method": "POST", authorization: "Bearer token-1" });
  expect(JSON.parse(body)).toEqual({
    message: {
      token: "fcm-token:1",
      notification: NOTIFICATION,
      data: DATA,
      android: {
        collapse_key: COLLAPSE,
        priority: "HIGH",
        ttl: "604800s",
        notification: { tag: COLLAPSE, sound: "default" },
      },
    },
  });
});

test("an iOS device behind FCM gets the headers and the flags of APNs", async () => {
  await using google = await start();
  await using sender = new TestSender(google.config);
  await sender.sendTo(fcmTarget(1, 2), RICH);
  const { message } = JSON.parse(google.fcm.received[0]!.body);
  expect(message).toEqual({
    token: "fcm-token:1",
    notification: NOTIFICATION,
    data: DATA,
    apns: {
      headers: {
        "apns-collapse-id": COLLAPSE,
        "apns-expiration": expect.stringMatching(/^\d+$/),
        "apns-priority": "10",
        "apns-push-type": "alert",
      },
      payload: { aps: { sound: "default", "mutable-content": 1 } },
      fcm_options: { image: RICH.imageUrl },
    },
  });
});

test("a browser gets icon, link and a topic it takes", async () => {
  await using google = await start();
  await using sender = new TestSender(google.config);
  await sender.sendTo(fcmTarget(1, 3), RICH);
  await sender.sendTo(fcmTarget(1, 3), { deepLink: "app://sale" });
  const [rich, plain] = google.fcm.received.map(({ body }) => JSON.parse(body).message);
  expect(rich.webpush).toEqual({
    headers: { TTL: "604800", Topic: expect.stringMatching(/^[\w-]{1,32}$/), Urgency: "high" },
    notification: { tag: COLLAPSE, icon: RICH.iconUrl, image: RICH.imageUrl },
    fcm_options: { link: RICH.deepLink },
  });
  expect(plain.webpush.fcm_options).toBeUndefined();
  expect(plain.data).toEqual({ notification_uuid: CAMPAIGN.uuid, deep_link: "app://sale" });
});

type Failure = Parameters<typeof fcmError>[0];
const TOKEN_MESSAGE = "The registration token is not a valid FCM registration token";
const verdicts: [string, Failure, string][] = [
  ["invalid_token", { code: 404, status: "NOT_FOUND", errorCode: "UNREGISTERED" }, "UNREGISTERED"],
  ["failed", { code: 404, status: "NOT_FOUND" }, "NOT_FOUND"],
  ["failed", { code: 400, status: "BAD", errorCode: "UNREGISTERED" }, "UNREGISTERED"],
  [
    "failed",
    { code: 403, status: "PERMISSION_DENIED", errorCode: "SENDER_ID_MISMATCH" },
    "SENDER_ID_MISMATCH",
  ],
  ["refused", { code: 403, status: "PERMISSION_DENIED" }, "PERMISSION_DENIED"],
  [
    "invalid_token",
    {
      code: 400,
      status: "INVALID_ARGUMENT",
      errorCode: "INVALID_ARGUMENT",
      message: TOKEN_MESSAGE,
      field: "message.token",
    },
    "INVALID_ARGUMENT",
  ],
  [
    "invalid_token",
    { code: 400, status: "INVALID_ARGUMENT", field: "message.token" },
    "INVALID_ARGUMENT",
  ],
  [
    "failed",
    { code: 400, status: "INVALID_ARGUMENT", field: "message.android.ttl" },
    "INVALID_ARGUMENT",
  ],
  ["failed", { code: 400, status: "INVALID_ARGUMENT", message: TOKEN_MESSAGE }, "INVALID_ARGUMENT"],
  ["failed", { code: 500, status: "INTERNAL", field: "message.token" }, "INTERNAL"],
  [
    "failed",
    { code: 401, status: "UNAUTHENTICATED", errorCode: "THIRD_PARTY_AUTH_ERROR" },
    "THIRD_PARTY_AUTH_ERROR",
  ],
];
for (const [kind, failure, code] of verdicts)
  test(`${JSON.stringify(failure)} is ${kind}`, async () => {
    await using google = await start(() => fcmError(failure));
    await using sender = new TestSender(google.config);
    expect(await sender.sendTo(fcmTarget())).toMatchObject({
      kind,
      reason: `FCM ${failure.code} ${code}`,
    });
    // Requests are retried if the error may be temporary.
    const asked = kind === "refused" ? 6 : failure.code >= 500 ? 8 : 1;
    expect(google.fcm.received).toHaveLength(asked);
  });

const transient: Failure[] = [
  { code: 429, status: "RESOURCE_EXHAUSTED", errorCode: "QUOTA_EXCEEDED" },
  { code: 500, status: "INTERNAL", errorCode: "INTERNAL" },
  { code: 503, status: "UNAVAILABLE", errorCode: "UNAVAILABLE" },
];
for (const failure of transient)
  test(`${failure.errorCode} is tried again with the same body`, async () => {
    await using google = await start();
    google.fcm.react = ({ number }) => (number <= 3 ? fcmError(failure) : OK);
    await using sender = new TestSender(google.config);
    expect(await sender.sendTo(fcmTarget())).toEqual({ kind: "sent" });
    expect(google.fcm.received).toHaveLength(4);
    expect(new Set(google.fcm.received.map(({ body }) => body)).size).toBe(1);
    expect(sender.counts.fcm).toEqual({ requests: 4, retries: 3, unprocessed: 0 });
  });

test("the access token is fetched once for all who wait, with an assertion the account signed", async () => {
  await using google = await start();
  google.tokens.delayMs = 30;
  await using sender = new TestSender(google.config);
  const outcomes = await Promise.all(
    Array.from({ length: 300 }, (_, n) => sender.sendTo(fcmTarget(n))),
  );
  expect(tally(outcomes)).toEqual({ sent: 300 });
  expect(google.tokens.assertions).toHaveLength(1);
  const { payload } = await jwtVerify(google.tokens.assertions[0]!, GOOGLE_KEYS.publicKey, {
    audience: google.tokens.url,
    issuer: "push@shop-123.iam.gserviceaccount.com",
  });
  expect(payload["scope"]).toBe("https://www.googleapis.com/auth/firebase.messaging");
});

test("the access token is renewed before it expires", async () => {
  await using google = await start();
  const clock = new FakeClock();
  await using sender = new TestSender(google.config, { clock });
  await sender.sendTo(fcmTarget());
  clock.advance(54 * 60_000);
  await sender.sendTo(fcmTarget());
  expect(google.tokens.assertions).toHaveLength(1);
  clock.advance(2 * 60_000);
  await sender.sendTo(fcmTarget());
  expect(google.tokens.assertions).toHaveLength(2);
  expect(google.fcm.received.at(-1)?.headers.authorization).toBe("Bearer token-2");
});

test("an access token that is refused is renewed once for all", async () => {
  await using google = await start();
  google.fcm.react = ({ headers }) =>
    headers.authorization === "Bearer token-1"
      ? fcmError({ code: 401, status: "UNAUTHENTICATED" })
      : OK;
  await using sender = new TestSender(google.config);
  const outcomes = await Promise.all(
    Array.from({ length: 100 }, (_, n) => sender.sendTo(fcmTarget(n))),
  );
  expect(tally(outcomes)).toEqual({ sent: 100 });
  expect(google.tokens.assertions).toHaveLength(2);
});

test("a renewed access token that is refused as well refuses", async () => {
  await using google = await start(() => fcmError({ code: 401, status: "UNAUTHENTICATED" }));
  await using sender = new TestSender(google.config);
  expect(await sender.sendTo(fcmTarget())).toEqual({
    kind: "refused",
    reason: "FCM 401 UNAUTHENTICATED",
  });
  expect(google.fcm.received).toHaveLength(1 + 6);
});

test("a token endpoint that denies the account refuses, without a push", async () => {
  await using google = await start();
  google.tokens.failure = () =>
    Response.json(
      { error: "invalid_grant", error_description: "Invalid JWT Signature." },
      { status: 400 },
    );
  await using sender = new TestSender(google.config);
  expect(await sender.sendTo(fcmTarget())).toEqual({
    kind: "refused",
    reason: "the token endpoint answered 400 invalid_grant",
  });
  expect(google.fcm.received).toHaveLength(0);
});

test("a token endpoint that fails is asked again, by one for all", async () => {
  await using google = await start();
  let failures = 0;
  google.tokens.failure = () => {
    failures += 1;
    if (failures === 1) google.tokens.failure = undefined;
    return new Response("down", { status: 503 });
  };
  await using sender = new TestSender(google.config, {
    persistence: { backoff: { baseMs: 300, capMs: 600 } },
  });
  const outcomes = await Promise.all(
    Array.from({ length: 100 }, (_, n) => sender.sendTo(fcmTarget(n))),
  );
  expect(tally(outcomes)).toEqual({ sent: 100 });
  expect(google.tokens.assertions).toHaveLength(2);
});

for (const body of [undefined, "", "<html>Welcome</html>", "[]", "{}", '{"name":""}', '{"name":7}'])
  test(`200 with ${body} is no accepted push: it is tried again, and at last failed`, async () => {
    await using google = await start(() => ({ status: 200, ...(body !== undefined && { body }) }));
    await using sender = new TestSender(google.config, { persistence: { attempts: 3 } });
    const outcome = await sender.sendTo(fcmTarget());
    expect(outcome).toEqual({ kind: "failed", reason: "FCM 200 without a name" });
    expect(google.fcm.received).toHaveLength(3);
  });

test("a token that would not fit into JSON as it is, is invalid without a request", async () => {
  await using google = await start();
  await using sender = new TestSender(google.config);
  for (const token of ["", 'a"b', "a\\b", "a b", "a\nb", "é", "a".repeat(4097)])
    expect(await sender.sendTo({ ...fcmTarget(), token })).toEqual({
      kind: "invalid_token",
      reason: "not a token of FCM",
    });
  expect(google.fcm.received).toHaveLength(0);
});

test("a message over 4,096 bytes is refused without a request", async () => {
  await using google = await start();
  await using sender = new TestSender(google.config);
  const outcome = await sender.sendTo(fcmTarget(), { body: "b".repeat(4096) });
  expect(outcome).toMatchObject({ kind: "refused" });
  expect(google.tokens.assertions).toHaveLength(0);
});
