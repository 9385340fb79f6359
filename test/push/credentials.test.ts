import { describe, expect, test } from "bun:test";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { pino } from "pino";

import { type Log } from "../../src/platform/logger.ts";
import { UsageError } from "../../src/platform/errors.ts";
import { AccessTokens } from "../../src/push/access-token.ts";
import { apnsKey, parseServiceAccount } from "../../src/push/credentials.ts";
import { openSender } from "../../src/push/open-sender.ts";
import { CredentialsUnavailable } from "../../src/push/provider.ts";
import { eventually } from "../support/eventually.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { CAMPAIGN, tally, TestSender } from "../support/push-sender.ts";
import {
  APNS_PEM,
  apnsConfig,
  fcmConfig,
  fcmTarget,
  GOOGLE_PEM,
  PushServer,
  serviceAccount,
  TokenServer,
} from "../support/push-servers.ts";

const GOOD = serviceAccount("https://oauth2.googleapis.com/token");
const log: Log = pino({ level: "silent" });

test("a key file of Google's is taken, without what is not needed of it", () => {
  const json = JSON.stringify({ type: "service_account", private_key_id: "1", ...GOOD });
  expect(parseServiceAccount(json)).toEqual(GOOD);
});

const bad: [string, string][] = [
  ["", "the service account is not JSON"],
  ['{"private_key": s3cret', "the service account is not JSON"],
  ["null", "the service account has no valid fields"],
  ["[]", "the service account has no valid project_id"],
  [
    JSON.stringify({ ...GOOD, project_id: "a/../b" }),
    "the service account has no valid project_id",
  ],
  [JSON.stringify({ ...GOOD, client_email: 5 }), "the service account has no valid client_email"],
  [JSON.stringify({ ...GOOD, token_uri: "ftp://x" }), "the service account has no valid token_uri"],
  [
    JSON.stringify({ ...GOOD, token_uri: "https://" }),
    "the service account has no valid token_uri",
  ],
  [
    JSON.stringify({ ...GOOD, private_key: "s3cret" }),
    "the service account's private_key is not an RSA private key in PEM form",
  ],
  [
    JSON.stringify({ ...GOOD, private_key: APNS_PEM }),
    "the service account's private_key is not an RSA private key in PEM form",
  ],
];
for (const [json, message] of bad)
  test(`${json.slice(0, 40)} … is told as "${message}"`, () => {
    expect(() => parseServiceAccount(json)).toThrow(new UsageError(message));
  });

test("a p8 key is taken, also with its line ends written out; another key is not", () => {
  apnsKey(APNS_PEM);
  apnsKey(`\n ${APNS_PEM.replaceAll("\n", "\\n")}`);
  const message = "the APNs key is not a P-256 private key in PEM form (a .p8 file)";
  for (const key of ["", "s3cret", GOOGLE_PEM, APNS_PEM.slice(0, 90)])
    expect(() => apnsKey(key)).toThrow(new UsageError(message));
});

const settings = {
  fcm: undefined,
  apns: apnsConfig("http://127.0.0.1:1"),
  concurrency: 3,
  perSecond: 10_000,
};

test("credentials are texts, or paths of files with them", async () => {
  const path = join(tmpdir(), `${crypto.randomUUID()}.json`);
  await Bun.write(path, JSON.stringify(GOOD));
  const fcm = { credentials: path, baseUrl: "http://127.0.0.1:1" };
  await using sender = await openSender({ ...settings, fcm }, log);
  expect(sender.canSend).toEqual({ fcm: true, apns: true });
  await rm(path);
  await using without = await openSender(settings, log);
  expect(without.canSend).toEqual({ fcm: false, apns: true });
  const gone = openSender({ ...settings, fcm }, log);
  expect((await Promise.allSettled([gone]))[0]).toMatchObject({
    status: "rejected",
    reason: { name: "UsageError", message: "FCM_CREDENTIALS names a file that cannot be read" },
  });
});

test("every unusable credential is named at once", async () => {
  const fcm = { credentials: "/no/such/file", baseUrl: "http://127.0.0.1:1" };
  const opening = openSender({ ...settings, fcm, apns: { ...settings.apns, key: "/none" } }, log);
  const [result] = await Promise.allSettled([opening]);
  const message =
    "FCM_CREDENTIALS names a file that cannot be read; APNS_KEY names a file that cannot be read";
  expect(result).toMatchObject({ reason: { name: "UsageError", message } });
});

test("a key id, team id or topic that fits no header is bad usage", async () => {
  for (const wrong of [{ topic: "a\r\nb" }, { keyId: "a b" }, { teamId: "" }]) {
    const opening = openSender({ ...settings, apns: { ...settings.apns, ...wrong } }, log);
    const [result] = await Promise.allSettled([opening]);
    expect(result).toMatchObject({ status: "rejected", reason: { name: "UsageError" } });
  }
});

const down = () => new Response("down", { status: 503 });

describe("while the token endpoint is down", () => {
  test("no attempt of a send is used up: all are sent once it is back", async () => {
    await using fcm = await PushServer.start();
    await using tokens = new TokenServer();
    let refused = 0;
    tokens.failure = () => {
      refused++;
      return down();
    };
    const persistence = { attempts: 1 };
    await using sender = new TestSender({ fcm: fcmConfig(fcm.url, tokens.url) }, { persistence });
    const sends = Array.from({ length: 200 }, (_, n) => sender.sendTo(fcmTarget(n)));
    // Not only asked: what it answers is decided later.
    await eventually("it refuses", () => refused > 0);
    tokens.failure = undefined;
    expect(tally(await Promise.all(sends))).toEqual({ sent: 200 });
    expect(tokens.assertions).toHaveLength(2);
    expect(fcm.received).toHaveLength(200);
    expect(sender.logged.join()).toContain("the token endpoint answered 503");
  });

  const failures = [
    [down, "the token endpoint answered 503"],
    [() => new Response("", { status: 429 }), "the token endpoint answered 429"],
    [() => Response.redirect("http://127.0.0.1:1/", 302), "the token endpoint answered 302"],
    [() => Response.json({ access_token: "" }), "the token endpoint answered 200"],
    [
      () => Response.json({ access_token: "x", expires_in: 9, pad: "x".repeat(70_000) }),
      "the token endpoint did not answer",
    ],
  ] as const;
  test.each(failures)("%#: the signal ends the waiting, and nothing was sent", async (...given) => {
    const [failure, reason] = given;
    await using fcm = await PushServer.start();
    await using tokens = new TokenServer();
    tokens.failure = failure;
    await using sender = new TestSender({ fcm: fcmConfig(fcm.url, tokens.url) });
    const stop = new AbortController();
    const sending = sender.send(fcmTarget(), sender.prepare(CAMPAIGN), stop.signal);
    const settled = Promise.allSettled([sending]);
    await eventually("that is told", () => sender.logged.join().includes(reason));
    const stopped = new Error("stopped");
    stop.abort(stopped);
    expect(await settled).toEqual([{ status: "rejected", reason: stopped }]);
    expect(fcm.received).toHaveLength(0);
  });

  test("it is asked at growing distances of at most 30 s, however many wait", async () => {
    await using tokens = new TokenServer();
    tokens.failure = down;
    const clock = new FakeClock();
    const access = new AccessTokens(serviceAccount(tokens.url), clock, log);
    for (let nth = 1; nth <= 12; nth++) {
      const asked = await Promise.allSettled(
        Array.from({ length: 500 }, async () => await access.get()),
      );
      expect(tokens.assertions).toHaveLength(nth);
      const retryMs = asked.map((one) =>
        one.status === "rejected" && one.reason instanceof CredentialsUnavailable
          ? one.reason.retryMs
          : 0,
      );
      const fullMs = Math.min(1000 * 2 ** (nth - 1), 30_000);
      expect(Math.min(...retryMs)).toBeGreaterThanOrEqual(fullMs / 2);
      expect(Math.max(...retryMs)).toBeLessThanOrEqual(fullMs);
      clock.advance(Math.max(...retryMs));
    }
    tokens.failure = undefined;
    expect(await access.get()).toBe("token-13");
  });

  test.each([
    [400, "invalid_grant"],
    [401, "invalid_client"],
  ])("unlike there %s %s refuses the account", async (status, error) => {
    await using fcm = await PushServer.start();
    await using tokens = new TokenServer();
    tokens.failure = () => Response.json({ error }, { status });
    await using sender = new TestSender({ fcm: fcmConfig(fcm.url, tokens.url) });
    expect(await sender.sendTo(fcmTarget())).toEqual({
      kind: "refused",
      reason: `the token endpoint answered ${status} ${error}`,
    });
    expect(fcm.received).toHaveLength(0);
  });
});
