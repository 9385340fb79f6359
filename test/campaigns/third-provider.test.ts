import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "bun:test";

import { pino } from "pino";

import { STATUS } from "../../src/campaigns/enums.ts";
import { Worker } from "../../src/campaigns/worker.ts";
import { importDevices } from "../../src/devices/import.ts";
import { markInvalidSql } from "../../src/devices/invalid-tokens.ts";
import { type Recipients, readRecipients, recipientsSql } from "../../src/devices/recipients.ts";
import { PROVIDERS } from "../../src/platform/config/push-config.ts";
import { type Sql } from "../../src/platform/database/database.ts";
import { DEVICE_PLATFORM } from "../../src/platform/device-platforms.ts";
import { WorkMetrics } from "../../src/platform/telemetry/work-metrics.ts";
import { OPENERS, openSender } from "../../src/push/open-sender.ts";
import { type Provider } from "../../src/push/provider.ts";
import { TestApp } from "../support/app.ts";
import { FakeProvider } from "../support/campaigns.ts";
import { line } from "../support/devices.ts";
import { eventually } from "../support/eventually.ts";
import { PushApi } from "../support/push-api.ts";
import { OK, PushServer } from "../support/push-servers.ts";
import { Scrape } from "../support/scrape.ts";

const LOG = pino({ level: "silent" });
const PIGEON = 3;
const { android, ios, web } = DEVICE_PLATFORM;

/** Settings of the provider, as its variables would give them. */
let settings: { baseUrl: string } | undefined;

/** Opens a provider that takes a line of text for each device. */
async function openPigeon({ baseUrl }: { baseUrl: string }): Promise<Provider> {
  return {
    origin: new URL(baseUrl).origin,
    prepare: ({ message: { title } }) => ({
      precheck: () => undefined,
      request: ({ token, messageId }, credential) => ({
        headers: {
          ":method": "POST",
          ":path": `/loft/${encodeURIComponent(token)}`,
          authorization: credential,
        },
        body: `${messageId} ${title}`,
      }),
    }),
    credential: () => "ring 7",
    forget: () => undefined,
    judge: ({ status }) =>
      status === 200 ? { kind: "sent" } : { kind: "invalid_token", reason: `pigeon ${status}` },
  };
}

const entry = {
  title: "Pigeon",
  sendPlatform: PIGEON,
  devicePlatforms: [android, ios],
  required: ["PIGEON_BASE_URL"],
  settings: () => settings,
};

let server: PushServer;
let app: TestApp;
let api: PushApi;

beforeAll(() => {
  Object.assign(PROVIDERS, { pigeon: entry });
  Object.assign(OPENERS, { pigeon: openPigeon });
});

afterAll(() => {
  Reflect.deleteProperty(PROVIDERS, "pigeon");
  Reflect.deleteProperty(OPENERS, "pigeon");
});

beforeEach(async () => {
  server = await PushServer.start();
  settings = { baseUrl: server.url };
});

afterEach(async () => {
  await app[Symbol.asyncDispose]();
  await server[Symbol.asyncDispose]();
});

/** Starts a server whose database allows the provider's number. */
async function start(env: Record<string, string> = {}): Promise<void> {
  app = await TestApp.start({ env });
  api = new PushApi(app);
  await app.sql`alter table devices drop constraint devices_send_platform_check`;
  await app.sql`alter table devices add check (send_platform between 0 and 3)`;
}

async function put(externalId: string, sendPlatform: number, devicePlatform: number) {
  const device = { external_id: externalId, push_token: `token-${externalId}` };
  const platforms = { send_platform: sendPlatform, device_platform: devicePlatform };
  await api.ok("PUT", "/devices", { ...device, ...platforms });
}

function workerDeps() {
  return {
    sql: app.sql,
    filter: (sql: Sql, recipients: Recipients) => recipientsSql(sql, recipients, "filter"),
    recipientsOf: readRecipients,
    markInvalid: markInvalidSql,
    log: LOG,
  };
}

/** Runs a worker until the campaign is sent, and returns a scrape of its metrics. */
async function work(uuid: string): Promise<Scrape> {
  const stop = new AbortController();
  const metrics = new WorkMetrics();
  await using sender = await openSender(app.config.push, LOG);
  const worker = new Worker({ ...workerDeps(), sender, metrics });
  metrics.watchPushes(() => sender.counts);
  metrics.watchCampaigns(worker);
  const done = worker.run(stop.signal);
  const isSent = async () => (await api.notification(uuid)).status === STATUS.sent;
  await eventually("the campaign is sent", isSent, 20_000);
  stop.abort();
  await done;
  return new Scrape(await metrics.registry.metrics());
}

test("a third provider sends a campaign by its entry, its opener and the check of its number alone", async () => {
  server.react = ({ path }) => (path.endsWith("gone") ? { status: 410 } : OK);
  await start();
  await put("a", PIGEON, android);
  await put("b", PIGEON, ios);
  await put("gone", PIGEON, ios);
  await put("browser", PIGEON, web);
  const imported = JSON.stringify(line("c", {}, { send_platform: PIGEON, device_platform: ios }));
  const lines = (async function* () {
    yield imported;
  })();
  expect((await importDevices(app.sql, lines, () => undefined)).problems).toEqual([]);

  const { uuid } = await api.draft();
  expect(await api.launch(uuid)).toMatchObject({ status: STATUS.queued, error: null });
  const scrape = await work(uuid);

  expect(await api.notification(uuid)).toMatchObject({
    targeted: 5,
    sent: { android: 1, ios: 2 },
    failed: 2,
  });
  const { events } = await api.events("browser");
  expect(events.map(({ event }) => event)).toContain("undeliverable");
  const paths = server.received.map(({ path }) => path).toSorted();
  const tokens = ["token of c", "token-a", "token-b", "token-gone"];
  expect(paths).toEqual(tokens.map((token) => `/loft/${encodeURIComponent(token)}`));
  for (const { body, headers } of server.received) {
    expect(body).toMatch(/^[0-9a-f-]{36} Hello$/);
    expect(headers.authorization).toBe("ring 7");
  }
  const invalid = await app.sql`select external_id from devices where token_invalid`;
  expect([...invalid]).toEqual([{ external_id: "gone" }]);

  const outcomes = (labels: string) => scrape.value(`floodgate_push_outcomes_total{${labels}}`);
  expect(outcomes('platform="pigeon",outcome="sent"')).toBe(3);
  expect(outcomes('platform="pigeon",outcome="invalid_token"')).toBe(1);
  expect(outcomes('platform="none",outcome="undeliverable"')).toBe(1);
  expect(scrape.value('floodgate_push_requests_total{platform="pigeon",kind="all"}')).toBe(4);
  expect(scrape.value('floodgate_push_requests_total{platform="fcm",kind="all"}')).toBe(0);
  expect(scrape.value('floodgate_push_window_max{platform="pigeon"}')).toBe(3000);
});

test("without its credentials a launch that needs the third provider is an error, and one that does not is queued", async () => {
  settings = undefined;
  await start();
  await put("a", PIGEON, ios);
  await put("browser", PIGEON, web);
  const all = await api.draft();
  expect(await api.launch(all.uuid)).toMatchObject({
    status: STATUS.error,
    error: "no push credentials are configured: the sender is off",
  });
  await app[Symbol.asyncDispose]();

  await start({ FCM_CREDENTIALS: "{}" });
  await put("a", PIGEON, ios);
  const { uuid } = await api.draft();
  expect(await api.launch(uuid)).toMatchObject({
    status: STATUS.error,
    error: "no credentials are configured for Pigeon",
  });
  await app.sql`update devices set device_platform = ${web}`;
  await api.setStatus(uuid, STATUS.draft);
  expect(await api.launch(uuid)).toMatchObject({ status: STATUS.queued, error: null });
});

test("providers with credentials share the concurrency evenly", async () => {
  await start();
  const provider = new FakeProvider();
  const worker = new Worker({ ...workerDeps(), sender: provider, metrics: new WorkMetrics() });
  const maxima = Object.entries(worker.window).map(([name, { max }]) => [name, max]);
  const share = Math.ceil(provider.concurrency / 3);
  expect(Object.fromEntries(maxima)).toEqual({ fcm: share, apns: share, pigeon: share });
});

test("a number that no provider has is refused", async () => {
  await start();
  const device = { external_id: "a", push_token: "t", device_platform: ios };
  expect(await api.refused("PUT", "/devices", { ...device, send_platform: PIGEON + 1 })).toEqual([
    400,
    "send_platform must be a whole number from 0 to 3",
  ]);
});
