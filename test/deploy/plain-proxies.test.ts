import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { pino } from "pino";

import { KEYED, TestApp } from "../support/app.ts";
import { Haproxy } from "../support/haproxy.ts";
import { Nginx } from "../support/nginx.ts";
import { bearerOf, claim, mint } from "../support/presence.ts";
import { type ProxyProcess } from "../support/proxy-process.ts";

// Includes the time to install missing programs with apt.
const SETUP_MS_MAX = 180_000;
const MANAGEMENT = [
  ["GET", "/v1/sessions?projectId=1"],
  ["GET", "/v1/images/1/a"],
  ["GET", "/devices/d1"],
  ["GET", "/notifications"],
  ["POST", "/notifications/-/:estimate"],
  ["POST", "/presence/tokens"],
] as const;

const lines: string[] = [];
let app: TestApp;

beforeAll(async () => {
  const log = pino({ level: "warn" }, { write: (line: string) => void lines.push(line) });
  app = await TestApp.start({ log, env: { TRUSTED_PROXIES: "" } });
}, SETUP_MS_MAX);

afterAll(async () => {
  await app[Symbol.asyncDispose]();
});

describe.each([
  ["nginx", Nginx],
  ["HAProxy", Haproxy],
] as const)("behind a plain %s on the same machine", (_name, kind) => {
  let proxy: ProxyProcess;

  beforeAll(async () => {
    proxy = await kind.plain(app.url);
  }, SETUP_MS_MAX);

  afterAll(async () => {
    await proxy[Symbol.asyncDispose]();
  });

  test.each(MANAGEMENT)("%s %s needs a key", async (method, path) => {
    const body = method === "POST" ? '{"userid":"ann"}' : undefined;
    const send = async (headers: Record<string, string>) =>
      await fetch(proxy.url + path, { method, headers, ...(body !== undefined && { body }) });
    for (const headers of [{}, { "x-server-key": "guess" }, { host: "localhost" }])
      expect((await send(headers)).status).toBe(403);
    expect((await send(KEYED)).status).not.toBe(403);
  });

  test("a forged claim is nobody's, and a token's user is the token's", async () => {
    const ping = async (headers: Record<string, string>) =>
      await fetch(`${proxy.url}/ping`, { method: "POST", headers, body: '{"status":"0"}' });
    const forged = { ...claim("eve"), "x-forwarded-for": "127.0.0.1" };
    expect((await ping(forged)).status).toBe(401);
    for (const path of ["/subscribe/ann", "/presence?users=ann", "/presence/ws"])
      expect((await fetch(proxy.url + path, { headers: forged })).status).toBe(401);
    const { token } = await mint(app, { userid: "ann" });
    expect((await ping({ ...forged, ...bearerOf(token) })).status).toBe(200);
    const seen = await fetch(`${proxy.url}/presence?users=ann,eve`, { headers: bearerOf(token) });
    expect(await seen.json()).toMatchObject({ ann: { online: true }, eve: { online: false } });
  });
});

test("the operator is told of claims once, and which variable is missing", () => {
  const told = lines.filter((line) => line.includes("X-User-Claim"));
  expect(told).toHaveLength(1);
  expect(told[0]).toContain("TRUSTED_PROXIES");
});
