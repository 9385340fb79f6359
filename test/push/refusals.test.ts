import { describe, expect, test } from "bun:test";

import { eventually } from "../support/eventually.ts";
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

const FORBIDDEN = apnsError(403, "InvalidProviderToken");

/** Answers the first pushes with these reactions, and accepts all others. */
function first(...reactions: Reaction[]): () => Reaction {
  return () => reactions.shift() ?? OK;
}

describe("a refusal that passes does not end a campaign", () => {
  test.each<[string, Reaction[]]>([
    ["once", [FORBIDDEN]],
    ["five times in a row", Array.from({ length: 5 }, () => FORBIDDEN)],
    [
      "for an expired bearer that was just renewed",
      Array.from({ length: 3 }, () => apnsError(403, "ExpiredProviderToken")),
    ],
    [
      "for another reason each time",
      [FORBIDDEN, apnsError(400, "BadTopic"), apnsError(403, "Forbidden")],
    ],
  ])("of APNs, %s", async (_what, reactions) => {
    await using apns = await PushServer.start(first(...reactions));
    await using sender = new TestSender({ apns: apnsConfig(apns.url) });
    expect(await sender.sendTo(apnsTarget())).toEqual({ kind: "sent" });
  });

  test.each<[string, Parameters<typeof fcmError>[0]]>([
    ["403", { code: 403, status: "PERMISSION_DENIED" }],
    ["401", { code: 401, status: "UNAUTHENTICATED" }],
  ])("of FCM, %s", async (_what, failure) => {
    const refused = fcmError(failure);
    await using fcm = await PushServer.start(first(refused, refused, refused));
    await using tokens = new TokenServer();
    await using sender = new TestSender({ fcm: fcmConfig(fcm.url, tokens.url) });
    expect(await sender.sendTo(fcmTarget())).toEqual({ kind: "sent" });
  });

  test("of the token endpoint", async () => {
    await using fcm = await PushServer.start();
    await using tokens = new TokenServer();
    let denials = 1;
    tokens.failure = () =>
      denials-- > 0
        ? Response.json({ error: "access_denied" }, { status: 403 })
        : Response.json({}, { status: 503 });
    const persistence = { backoff: { baseMs: 1500, capMs: 1500 } };
    await using sender = new TestSender({ fcm: fcmConfig(fcm.url, tokens.url) }, { persistence });
    const sending = sender.sendTo(fcmTarget());
    await eventually("it denies", () => denials <= 0);
    tokens.failure = undefined;
    expect(await sending).toEqual({ kind: "sent" });
  });
});

test("a device that is refused time and again while others are accepted fails alone", async () => {
  const odd = apnsTarget(0);
  await using apns = await PushServer.start(({ path }) =>
    path.endsWith(odd.token) ? FORBIDDEN : OK,
  );
  await using sender = new TestSender(
    { apns: apnsConfig(apns.url) },
    { persistence: { backoff: { baseMs: 50, capMs: 50 } } },
  );
  const ended = new AbortController();
  const outcome = sender.sendTo(odd).finally(() => ended.abort());
  const others = [];
  for (let n = 1; !ended.signal.aborted; n++) others.push(await sender.sendTo(apnsTarget(n)));
  expect(await outcome).toEqual({ kind: "failed", reason: "APNs 403 InvalidProviderToken" });
  expect(tally(others)).toEqual({ sent: others.length });
});

test("credentials that are withdrawn in the middle refuse all that is still to be sent", async () => {
  let left = 100;
  await using apns = await PushServer.start(() => (left-- > 0 ? OK : FORBIDDEN));
  await using sender = new TestSender(
    { apns: apnsConfig(apns.url) },
    { persistence: { backoff: { baseMs: 30, capMs: 1000 } } },
  );
  const outcomes = await Promise.all(
    Array.from({ length: 300 }, (_, n) => sender.sendTo(apnsTarget(n))),
  );
  expect(tally(outcomes)).toEqual({ sent: 100, refused: 200 });
});
