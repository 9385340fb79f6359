import { join } from "node:path";

import { Type } from "typebox";
import { Value } from "typebox/value";

import { type Harness, OTHER_CORE, SERVER_CORE, SERVER_KEY, type Subject } from "../harness.ts";
import { BENCH_DIR, type Running } from "../processes.ts";
import type { Store } from "../stores.ts";

const POLL_MS = 100;
const SENT = 2;
export const ERROR = 3;
export const DELETED = 4;

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

/** A server, a worker and a simulator of both providers. */
export type Senders = AsyncDisposable & { server: Subject; work: Running; push: Running };

export async function startSenders(
  harness: Harness,
  store: Store,
  latencyMs: number,
  settings: Record<string, string> = {},
): Promise<Senders> {
  const push = await harness.processes.startHelper({
    script: join(BENCH_DIR, "baselines/push-server.ts"),
    args: [String(latencyMs)],
    core: harness.core(OTHER_CORE),
  });
  const env = { ...(await pushEnvironment(push.url)), ...settings };
  const server = await harness.startFloodgate(store, env);
  const work = harness.processes.start({
    script: harness.options.server,
    args: ["work"],
    env: { ...harness.serverEnv(), ...env },
    core: harness.core(SERVER_CORE),
  });
  return {
    server,
    work,
    push,
    [Symbol.asyncDispose]: async () => {
      for (const running of [work, server, push]) await running[Symbol.asyncDispose]();
    },
  };
}

/** Returns made-up credentials for both providers, which are simulated at that URL. */
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

/** Creates a campaign to that many devices; returns its UUID. */
export async function draft(url: string, devices: number): Promise<string> {
  const body = {
    title: "Bench",
    body: "A campaign of the benchmark.",
    deep_link: "app://bench",
    conditions: { key: "score", operator: "int_lt", value: String(devices) },
  };
  const { result } = Value.Parse(Created, await call(url, "/notifications", body));
  return result.uuid;
}

export async function progressOf(url: string, uuid: string) {
  const { result } = Value.Parse(Progress, await call(url, `/notifications/${uuid}`));
  return { ...result, sent: result.sent.android + result.sent.ios };
}

export async function untilSent(url: string, uuid: string, onProgress: (sent: number) => void) {
  for (;;) {
    const state = await progressOf(url, uuid);
    onProgress(state.sent);
    if (state.status === SENT || state.status === ERROR) return state;
    await Bun.sleep(POLL_MS);
  }
}

export async function call(
  url: string,
  path: string,
  body?: object,
  method = body === undefined ? "GET" : "POST",
): Promise<unknown> {
  const response = await fetch(url + path, {
    method,
    headers: { "x-server-key": SERVER_KEY },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  if (response.status !== 200) throw new Error(`${path} answered ${response.status}`);
  return await response.json();
}
