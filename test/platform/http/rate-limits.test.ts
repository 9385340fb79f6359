import { describe, expect, setDefaultTimeout, test } from "bun:test";

import { metric, refusalOf } from "../../support/answers.ts";
import { TestApp, type TestSession } from "../../support/app.ts";
import { aBatch } from "../../support/batches.ts";
import { timed } from "../../support/eventually.ts";
import { aProject } from "../../support/projects.ts";
import { RawConnection } from "../../support/raw-connection.ts";
import { RedisServer } from "../../support/redis-server.ts";
import { uploadImage } from "../../support/images.ts";
import { append, serverBeside } from "../../support/requests.ts";

setDefaultTimeout(30_000);

const WINDOW_S = 5;
const TOO_MANY = 3 * WINDOW_S;

type Target = { url: string };

async function batchStatus(target: Target, session: TestSession): Promise<number> {
  const response = await append(target, session, aBatch({ salt: crypto.randomUUID() }));
  await response.bytes();
  return response.status;
}

/** The statuses of so many batches, one after the other. */
async function batches(targets: Target[], session: TestSession, many: number): Promise<number[]> {
  const statuses: number[] = [];
  for (let i = 0; i < many; i++) {
    const target = targets[i % targets.length];
    if (target !== undefined) statuses.push(await batchStatus(target, session));
  }
  return statuses;
}

/** The statuses of so many requests, one after the other. */
async function statusesOf(ask: () => Promise<Response>, many: number): Promise<number[]> {
  const all: number[] = [];
  for (let i = 0; i < many; i++) all.push((await ask()).status);
  return all;
}

const accepted = (statuses: number[]) => statuses.filter((status) => status === 200).length;

let addresses = 0;
const anAddress = () => `192.0.2.${++addresses}`;
const from = (address: string) => ({ "x-forwarded-for": address });

describe("a session's limit", () => {
  const app = TestApp.forTests({ env: { RATE_LIMIT_SESSION: "1" } });
  test("lets five seconds' worth in at once, then nothing until Retry-After", async () => {
    const session = await app.aSession();
    expect(await batches([app], session, TOO_MANY)).toEqual([
      ...Array.from({ length: WINDOW_S }, () => 200),
      ...Array.from({ length: TOO_MANY - WINDOW_S }, () => 429),
    ]);
    const refused = await app.append(session, aBatch());
    const retryAfter = refused.headers.get("retry-after") ?? "";
    expect(retryAfter).toMatch(/^[1-5]$/);
    expect(refused.headers.get("access-control-allow-origin")).toBe("*");
    expect(await refusalOf(refused)).toEqual([
      429,
      "too many requests of this session, send it again",
    ]);
    await Bun.sleep(Number(retryAfter) * 1000);
    expect(accepted(await batches([app], session, TOO_MANY))).toBe(WINDOW_S);
  });

  test("counts batches, late ones and images together, and of no other session", async () => {
    const session = await app.aSession();
    const target = { url: app.url, projectID: app.projectID };
    for (const path of ["append", "i", "late"])
      expect((await app.append(session, aBatch({ salt: path }), `/v1/ios/${path}`)).status).toBe(
        200,
      );
    for (const name of ["one", "two"])
      expect((await uploadImage(target, session, name, new Uint8Array([1]))).status).toBe(200);
    expect((await uploadImage(target, session, "three", new Uint8Array([1]))).status).toBe(429);
    expect((await app.append(session, aBatch(), "/v1/mobile/late")).status).toBe(429);
    expect(await batchStatus(app, await app.aSession())).toBe(200);
  });

  test("refuses before the body, which may not even come", async () => {
    const session = await app.aSession();
    await batches([app], session, WINDOW_S);
    using raw = await RawConnection.open(app.url);
    raw.head("POST /v1/ios/append", {
      authorization: `Bearer ${session.token}`,
      "content-length": 500_000,
    });
    const { status, headers } = await raw.response();
    expect(status).toBe(429);
    expect(headers.get("retry-after")).toMatch(/^[1-5]$/);
    expect(await metric(app, "floodgate_inflight_bytes")).toBe(0);
  });

  test("is counted in the metrics, and never concerns reading", async () => {
    const session = await app.aSession();
    const before = await metric(app, 'floodgate_limited_total{limit="session"}');
    await batches([app], session, WINDOW_S + 2);
    expect(await metric(app, 'floodgate_limited_total{limit="session"}')).toBe(before + 2);
    for (let i = 0; i < TOO_MANY; i++) expect(await app.batches(session)).toHaveLength(WINDOW_S);
  });
});

test("a project's limit counts its starts and all its sessions, and leaves other projects alone", async () => {
  await using app = await TestApp.start({ env: { RATE_LIMIT_PROJECT: "2" } });
  const other = await aProject(app);
  const sessions = [await app.aSession(), await app.aSession()];
  const theirs = await app.aSession({ projectID: other.projectID });
  for (const session of sessions) expect(await batches([app], session, 3)).toEqual([200, 200, 200]);
  expect(accepted(await batches([app], await app.aSession(), TOO_MANY))).toBe(1);
  const start = await app.start();
  expect(start.headers.get("retry-after")).toMatch(/^[1-5]$/);
  expect(await refusalOf(start)).toEqual([429, "too many requests of this project, send it again"]);
  expect(accepted(await batches([app], theirs, 6))).toBe(6);
});

describe("an address's limit", () => {
  const app = TestApp.forTests({ env: { RATE_LIMIT_ADDRESS: "1" } });
  test.each<[string, string, { method?: string; body?: string }, number]>([
    ["guessing signatures", "/api/v1/users", { method: "POST" }, 401],
    ["guessing signatures to list", "/api/v1/updates", {}, 401],
    ["checks for updates", "/api/v1/updates/1_01", {}, 404],
    ["downloads", "/source/none.apk", {}, 404],
    ["guessing session tokens", "/v1/ios/append", { method: "POST" }, 401],
    ["starts", "/v1/mobile/start", { method: "POST", body: "{}" }, 403],
    ["guessing user tokens", "/presence?users=ann&token=none", {}, 401],
    ["pings", "/ping", { method: "POST" }, 400],
  ])("holds for %s", async (_what, path, init, status) => {
    const headers = from(anAddress());
    const ask = () => app.fetch(path, { ...init, headers });
    expect(await statusesOf(ask, WINDOW_S + 1)).toEqual([
      ...Array.from({ length: WINDOW_S }, () => status),
      429,
    ]);
    const refused = await ask();
    expect(refused.headers.get("retry-after")).toMatch(/^[1-5]$/);
    const message = "too many requests of this address, send it again";
    expect(await refused.text()).toBe(
      path.startsWith("/v1") || path.startsWith("/p")
        ? JSON.stringify({ error: message })
        : `${message}\n`,
    );
    const elsewhere = await app.fetch(path, { ...init, headers: from(anAddress()) });
    expect(elsewhere.status).not.toBe(429);
  });

  test("takes the addresses of an IPv6 network for one", async () => {
    let host = 0;
    const ask = () => app.fetch("/presence", { headers: from(`2001:db8:1:2::${++host}`) });
    expect(await statusesOf(ask, WINDOW_S + 1)).toContain(429);
    const elsewhere = await app.fetch("/presence", { headers: from("2001:db8:1:3::1") });
    expect(elsewhere.status).not.toBe(429);
  });

  test("does not hold for operators, preflights and what needs a server key", async () => {
    const headers = from("203.0.113.9");
    for (const path of ["/livez", "/readyz", "/metrics", "/docs/json", "/v1/sessions", "/devices"])
      expect(await statusesOf(() => app.fetch(path, { headers }), TOO_MANY)).not.toContain(429);
    const ask = () => app.fetch("/v1/ios/append", { method: "OPTIONS", headers });
    expect(await statusesOf(ask, TOO_MANY)).not.toContain(429);
  });
});

test("without limits nothing is refused", async () => {
  await using app = await TestApp.start();
  expect(accepted(await batches([app], await app.aSession(), 50))).toBe(50);
});

describe("two servers", () => {
  const env = { RATE_LIMIT_PROJECT: "4" };
  const POINTS = 4 * WINDOW_S;
  // Each server tells Redis of two at a time, and has answered some more when it hears that there were too many.
  const LATE = 2 * 4;

  test("share a limit through Redis", async () => {
    await using app = await TestApp.start({ redis: true, env });
    await using other = await serverBeside(app);
    const session = await app.aSession();
    const letIn = accepted(await batches([app, other], session, 3 * POINTS));
    expect(letIn).toBeGreaterThanOrEqual(POINTS - 1);
    expect(letIn).toBeLessThanOrEqual(POINTS + LATE);
  });

  test("count for themselves without Redis", async () => {
    await using app = await TestApp.start({ env });
    await using other = await serverBeside(app);
    const session = await app.aSession();
    expect(accepted(await batches([app, other], session, 3 * POINTS))).toBe(2 * POINTS - 1);
  });

  test("go on with their own counts while Redis is dead or silent, and share again when it is back", async () => {
    await using redis = await RedisServer.start();
    await using app = await TestApp.start({ env: { ...env, REDIS_URL: redis.url } });
    await using other = await serverBeside(app);
    const theirs = await Promise.all(
      Array.from({ length: 3 }, async () => {
        const project = await aProject(app);
        return await app.aSession({ projectID: project.projectID });
      }),
    );
    const [dead, silent, back] = theirs;
    if (dead === undefined || silent === undefined || back === undefined) throw new Error();

    await redis.kill();
    const whileDead = await timed(() => batches([app, other], dead, 3 * POINTS));
    expect(accepted(whileDead.result)).toBeGreaterThanOrEqual(2 * POINTS - 1);
    expect(new Set(whileDead.result)).toEqual(new Set([200, 429]));

    await redis.restart();
    await Bun.sleep(1100);
    redis.freeze();
    const whileSilent = await timed(() => batches([app, other], silent, 3 * POINTS));
    expect(accepted(whileSilent.result)).toBeGreaterThanOrEqual(2 * POINTS - 1);
    for (const { ms } of [whileDead, whileSilent]) expect(ms).toBeLessThan(3000);

    redis.thaw();
    await Bun.sleep(1500);
    expect(accepted(await batches([app, other], back, 3 * POINTS))).toBeLessThanOrEqual(
      POINTS + LATE,
    );
  });
});
