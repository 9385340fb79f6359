import { join } from "node:path";

import { Type } from "typebox";
import { Value } from "typebox/value";

import { cpuSeconds, familyCpuSeconds, peakRssBytes } from "../accounting.ts";
import { OTHER_CORE, SERVER_CORE, SERVER_KEY } from "../harness.ts";
import { BENCH_DIR } from "../processes.ts";
import { count, microseconds, mib, perSecond, seconds } from "../report/units.ts";
import type { CampaignParameters } from "./campaign-parameters.ts";
import type { Context } from "./measure.ts";

const RATE_MIN = 8000;
const CPU_US_MAX = 130;
const RSS_BYTES_MAX = 300 * 2 ** 20;
const POLL_MS = 100;
const SENT = 2;
const ERROR = 3;

const Created = Type.Object({ result: Type.Object({ uuid: Type.String() }) });
const Progress = Type.Object({
  result: Type.Object({
    status: Type.Integer(),
    targeted: Type.Integer(),
    failed: Type.Integer(),
    sent: Type.Object({ android: Type.Integer(), ios: Type.Integer() }),
    error: Type.Union([Type.String(), Type.Null()]),
  }),
});
const Counts = Type.Object({ apns: Type.Integer(), fcm: Type.Integer() });

/** A campaign to part of the devices, against a stand-in for both providers. */
export async function measureLaunch(context: Context<CampaignParameters>): Promise<void> {
  const { harness, findings, parameters } = context;
  await using store = await harness.openStore("files");
  await using push = await harness.processes.startHelper({
    script: join(BENCH_DIR, "baselines/push-server.ts"),
    args: [String(parameters.latencyMs)],
    core: harness.core(OTHER_CORE),
  });
  const env = await pushEnvironment(push.url);
  await using server = await harness.startFloodgate(store, env);
  await using work = harness.processes.start({
    script: harness.options.server,
    args: ["work"],
    env: { ...harness.serverEnv(), ...env },
    core: harness.core(SERVER_CORE),
  });
  const uuid = await draft(server.url, parameters);
  const postmaster = await harness.postmaster();
  const postgresSeconds = () =>
    postmaster === undefined ? Number.NaN : familyCpuSeconds(postmaster);
  const before = { cpu: cpuSeconds(work.pid), postgres: postgresSeconds() };
  harness.progress.start(`launch: ${count(parameters.launched)} devices`);
  const startedMs = performance.now();
  await call(server.url, `/notifications/${uuid}/:launch`, {});
  const { result } = await untilSent(server.url, uuid, (sent) =>
    harness.progress.update(sent / parameters.launched, `${count(sent)} sent`),
  );
  const took = (performance.now() - startedMs) / 1000;
  harness.progress.stop();
  const sent = result.sent.android + result.sent.ios;
  const counts = Value.Parse(Counts, await (await fetch(`${push.url}/counts`)).json());
  if (result.status === ERROR) findings.failures.push(`the campaign ended: ${result.error}`);
  if (sent !== parameters.launched || counts.apns + counts.fcm !== sent)
    findings.failures.push(
      `${sent} of ${parameters.launched} recorded, ${counts.apns + counts.fcm} arrived`,
    );
  const cpu = ((cpuSeconds(work.pid) - before.cpu) / sent) * 1e6;
  const postgres = ((postgresSeconds() - before.postgres) / sent) * 1e6;
  const rss = peakRssBytes(work.pid) ?? Number.NaN;
  findings.section(
    `Launch: push server with ${parameters.latencyMs} ms of latency, half FCM, half APNs`,
    ["sent", "time", "rate", "CPU/send", "PostgreSQL/send", "peak RSS"],
    [
      [
        count(sent),
        seconds(took),
        perSecond(sent / took),
        microseconds(cpu),
        microseconds(postgres),
        mib(rss),
      ],
    ],
    "Time is from the launch until every outcome is recorded.",
  );
  findings.atLeast("sends", sent / took, RATE_MIN, perSecond);
  findings.atMost("CPU per send", cpu, CPU_US_MAX, microseconds);
  findings.atMost("peak RSS of work", rss, RSS_BYTES_MAX, mib);
}

/** Credentials of nobody's, for both providers at that server. */
async function pushEnvironment(url: string): Promise<Record<string, string>> {
  const baseUrl = await (await fetch(`${url}/push`)).text();
  const rsa = await crypto.subtle.generateKey(
    {
      name: "RSASSA-PKCS1-v1_5",
      hash: "SHA-256",
      modulusLength: 2048,
      publicExponent: new Uint8Array([1, 0, 1]),
    },
    true,
    ["sign", "verify"],
  );
  const ec = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, [
    "sign",
    "verify",
  ]);
  return {
    FCM_CREDENTIALS: JSON.stringify({
      type: "service_account",
      project_id: "bench",
      client_email: "bench@example.com",
      private_key: await pem(rsa.privateKey),
      token_uri: `${url}/token`,
    }),
    FCM_BASE_URL: baseUrl,
    APNS_KEY: await pem(ec.privateKey),
    APNS_KEY_ID: "ABCDE12345",
    APNS_TEAM_ID: "FGHIJ67890",
    APNS_TOPIC: "com.example.bench",
    APNS_BASE_URL: baseUrl,
  };
}

async function pem(key: CryptoKey): Promise<string> {
  const der = Buffer.from(await crypto.subtle.exportKey("pkcs8", key)).toString("base64");
  const lines = der.match(/.{1,64}/g) ?? [];
  return `-----BEGIN PRIVATE KEY-----\n${lines.join("\n")}\n-----END PRIVATE KEY-----\n`;
}

async function draft(url: string, { launched }: CampaignParameters): Promise<string> {
  const body = {
    title: "Bench",
    body: "A campaign of the bench's.",
    deep_link: "app://bench",
    conditions: { key: "score", operator: "int_lt", value: String(launched) },
  };
  const { result } = Value.Parse(Created, await call(url, "/notifications", body));
  return result.uuid;
}

async function untilSent(url: string, uuid: string, onProgress: (sent: number) => void) {
  for (;;) {
    const state = Value.Parse(Progress, await call(url, `/notifications/${uuid}`));
    const { status, sent } = state.result;
    onProgress(sent.android + sent.ios);
    if (status === SENT || status === ERROR) return state;
    await Bun.sleep(POLL_MS);
  }
}

async function call(url: string, path: string, body?: object): Promise<unknown> {
  const response = await fetch(url + path, {
    headers: { "x-server-key": SERVER_KEY },
    ...(body !== undefined && { method: "POST", body: JSON.stringify(body) }),
  });
  if (response.status !== 200) throw new Error(`${path} answered ${response.status}`);
  return await response.json();
}
