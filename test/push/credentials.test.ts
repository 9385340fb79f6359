import { expect, test } from "bun:test";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { pino } from "pino";

import { UsageError } from "../../src/platform/errors.ts";
import { checkApnsKey, parseServiceAccount } from "../../src/push/credentials.ts";
import { openSender } from "../../src/push/open-sender.ts";
import { APNS_PEM, apnsConfig, GOOGLE_PEM, serviceAccount } from "../support/push-servers.ts";

const GOOD = serviceAccount("https://oauth2.googleapis.com/token");
const log = pino({ level: "silent" });

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
  checkApnsKey(APNS_PEM);
  checkApnsKey(`\n ${APNS_PEM.replaceAll("\n", "\\n")}`);
  const message = "the APNs key is not a P-256 private key in PEM form (a .p8 file)";
  for (const key of ["", "s3cret", GOOGLE_PEM, APNS_PEM.slice(0, 90)])
    expect(() => checkApnsKey(key)).toThrow(new UsageError(message));
});

const settings = { fcm: undefined, apns: apnsConfig("http://127.0.0.1:1"), concurrency: 3 };

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

test("a key id, team id or topic that fits no header is bad usage", async () => {
  for (const wrong of [{ topic: "a\r\nb" }, { keyId: "a b" }, { teamId: "" }]) {
    const opening = openSender({ ...settings, apns: { ...settings.apns, ...wrong } }, log);
    const [result] = await Promise.allSettled([opening]);
    expect(result).toMatchObject({ status: "rejected", reason: { name: "UsageError" } });
  }
});
