import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";

import { objectOf } from "../../support/answers.ts";
import { TestApp } from "../../support/app.ts";
import { aBatch } from "../../support/batches.ts";
import { pidsOf } from "../../support/children.ts";
import { eventually } from "../../support/eventually.ts";
import { PushServer, TokenServer, serviceAccount } from "../../support/push-servers.ts";
import { append } from "../../support/requests.ts";
import { Scrape } from "../../support/scrape.ts";
import { ServerProcess, envOf } from "../../support/server-process.ts";
import { UpdateApi } from "../../support/updates.ts";
import { MAIN } from "../../support/program.ts";

setDefaultTimeout(60_000);

const DEVICES = 20;
const STORED = 'floodgate_batches_total{outcome="stored"}';
const ACKNOWLEDGED = 'floodgate_acknowledgement_duration_seconds_count{kind="batch"}';
const SENT = 'floodgate_push_outcomes_total{platform="fcm",outcome="sent"}';

let push: PushServer;
let tokens: TokenServer;
let app: TestApp;
let env: Record<string, string>;

beforeAll(async () => {
  push = await PushServer.start();
  tokens = new TokenServer();
  const fcm = {
    FCM_CREDENTIALS: JSON.stringify({ type: "service_account", ...serviceAccount(tokens.url) }),
    FCM_BASE_URL: push.url,
  };
  app = await TestApp.start({ redis: true, env: fcm });
  env = { ...envOf(app), ...fcm };
  await app.sql`
    insert into devices (external_id, push_token, send_platform, device_platform)
    select 'd' || nth, lpad(to_hex(nth), 64, '0'), 1, 1 from generate_series(1, ${DEVICES}) as nth`;
});

afterAll(async () => {
  await app[Symbol.asyncDispose]();
  await tokens[Symbol.asyncDispose]();
  await push[Symbol.asyncDispose]();
});

const processes = (scrape: Scrape, command: string) =>
  scrape.series
    .filter((series) => series.startsWith(`floodgate_processes{command="${command}"`))
    .reduce((sum, series) => sum + scrape.value(series), 0);

let salts = 0;

/** Batches on connections of their own, which the processes on the port share. */
async function sendBatches(target: { url: string }, count: number): Promise<void> {
  const session = await app.aSession();
  const statuses = Array.from({ length: count }, async () => {
    const batch = aBatch({ salt: `batch${salts++}` });
    const answer = await fetch(`${target.url}/v1/ios/append`, {
      method: "POST",
      headers: { authorization: `Bearer ${session.token}` },
      body: batch,
      keepalive: false,
    });
    return answer.status;
  });
  expect(await Promise.all(statuses)).toEqual(statuses.map(() => 200));
}

async function sendCampaign(): Promise<void> {
  const draft = JSON.stringify({ title: "Hello", body: "There is news.", conditions: {} });
  const { result } = await objectOf(app.post("/notifications", draft));
  await app.post(`/notifications/${Object(result).uuid}/:launch`, "{}");
}

/** Every metric that a file of `deploy/` asks for. */
async function namesIn(file: string): Promise<string[]> {
  const text = await Bun.file(new URL(`../../../deploy/${file}`, import.meta.url)).text();
  return [...new Set(text.match(/\b(?:floodgate|process|nodejs)_[a-z0-9_]+/g))];
}

test("whichever process of a start is scraped, it answers with the sum of all, those included that have ended or are frozen", async () => {
  await using server = await ServerProcess.start({ ...env, WORKERS: "2" }, [MAIN, "start"]);
  const all = await Scrape.of(server);
  expect([processes(all, "serve"), processes(all, "work")]).toEqual([2, 1]);

  await sendBatches(server, 60);
  const scrapes = await Promise.all(Array.from({ length: 10 }, () => Scrape.of(server)));
  for (const scrape of scrapes) {
    expect([scrape.value(STORED), scrape.value(ACKNOWLEDGED)]).toEqual([60, 60]);
    expect(scrape.value("floodgate_inflight_limit_bytes")).toBe(2 * app.config.inflightBytesMax);
    expect(scrape.value('floodgate_dependency_up{dependency="redis"}')).toBe(1);
  }

  const [pid = 0] = await pidsOf(server.pid, "serve");
  process.kill(pid, "SIGKILL");
  await eventually("another has its place", async () => {
    // Nobody may have been there to take it.
    const scrape = await Scrape.of(server).catch(() => undefined);
    if (scrape === undefined) return false;
    expect(scrape.value(STORED)).toBe(60);
    const pids = await pidsOf(server.pid, "serve");
    return processes(scrape, "serve") === 2 && !pids.includes(pid);
  });
  await sendBatches(server, 10);
  const after = await Scrape.of(server);
  expect(after.value(STORED)).toBe(70);
  const [worker = 0] = await pidsOf(server.pid, "work");
  process.kill(worker, "SIGSTOP");
  const without = await Scrape.of(server);
  expect([processes(without, "work"), without.value(STORED)]).toEqual([0, 70]);
  process.kill(worker, "SIGCONT");
  expect(processes(await Scrape.of(server), "work")).toBe(1);
  const started = 'process_start_time_seconds{command="serve"}';
  expect(after.value(started)).toBeGreaterThan(all.value(started));
});

test("every metric of the dashboard and of the alerts is there once there was traffic, and each asks for it by its name", async () => {
  await using server = await ServerProcess.start({ ...env, WORKERS: "1", STRICT_FRAMING: "true" }, [
    MAIN,
    "start",
  ]);
  await sendBatches(server, 3);
  await append(server, await app.aSession(), Buffer.from("xyz"));
  await fetch(`${server.url}/ping`, {
    headers: { "x-user-claim": '{"userid":"ann","clientid":"a"}' },
  });
  await using stream = await subscribe(server);
  const { URI } = await UpdateApi.of(app).then((api) => api.at(server).published());
  await (await fetch(URI)).bytes();
  await sendCampaign();
  await eventually("the campaign is sent", async () => {
    const scrape = await Scrape.of(server);
    return scrape.value(SENT) === DEVICES && scrape.value("floodgate_campaigns_running") === 0;
  });
  const scrape = await Scrape.of(server);
  expect(scrape.value('floodgate_push_requests_total{platform="fcm",kind="all"}')).toBe(DEVICES);
  expect(scrape.value("floodgate_campaign_overdue_seconds")).toBe(0);
  expect(stream.status).toBe(200);
  const there = new Set(
    [...scrape.families].flatMap(([name, { type, samples }]) => {
      // Nothing has been limited or dropped here.
      if (samples === 0 && !/_(?:limited|dropped|images|session_starts)_/.test(`${name}_`))
        return [];
      return type === "histogram"
        ? ["bucket", "sum", "count"].map((end) => `${name}_${end}`)
        : name;
    }),
  );
  for (const file of ["grafana-dashboard.json", "alerts.yaml"]) {
    const names = await namesIn(file);
    expect(names.length).toBeGreaterThan(10);
    expect(names.filter((name) => !there.has(name))).toEqual([]);
  }
});

test("work alone answers on METRICS_PORT, and sees who is away", async () => {
  await using work = await ServerProcess.start({ ...env, METRICS_PORT: "0" }, [MAIN, "work"]);
  await sendCampaign();
  await eventually("it is sent", async () => (await Scrape.of(work)).value(SENT) === DEVICES);
  const scrape = await Scrape.of(work);
  expect([processes(scrape, "serve"), processes(scrape, "work")]).toEqual([0, 1]);
  expect(scrape.value('floodgate_push_window_max{platform="fcm"}')).toBe(3000);
  expect(scrape.value('floodgate_dependency_up{dependency="postgres"}')).toBe(1);
  expect(await (await fetch(`${work.url}/livez`)).json()).toEqual({ status: "ok" });
  const ready = await fetch(`${work.url}/readyz`);
  expect([ready.status, await ready.json()]).toEqual([
    200,
    { status: "ok", postgres: "ok", objects: "ok" },
  ]);
  expect((await fetch(`${work.url}/v1/sessions`)).status).toBe(404);
  work.signal("SIGTERM");
  expect(await work.exited).toBe(0);
});

async function subscribe({ url }: { url: string }) {
  const stop = new AbortController();
  const { status } = await fetch(`${url}/subscribe/ann/client/b`, {
    headers: { "x-user-claim": '{"userid":"ann","clientid":"b"}' },
    signal: stop.signal,
  });
  return { status, [Symbol.asyncDispose]: async () => stop.abort() };
}
