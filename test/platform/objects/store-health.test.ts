import { describe, expect, setDefaultTimeout, test } from "bun:test";

import { TestApp } from "../../support/app.ts";
import { aBatch } from "../../support/batches.ts";
import { eventually } from "../../support/eventually.ts";
import { append, serverBeside } from "../../support/requests.ts";
import { S3Proxy, type S3Script, refuses } from "../../support/s3-proxy.ts";

setDefaultTimeout(60_000);

const NOTICED_MS = 5000;
const DEADLINE_MS = 700;
const DENIED = refuses(403, "AccessDenied");
const hangs: S3Script = async () => await new Promise(() => undefined);

const isProbe = (path: string) => path.includes("/health/probe");

const app = TestApp.forTests({ store: "s3" });
/** Starts a server whose object store is behind a proxy. */
async function behindProxy(commitDeadlineMs = DEADLINE_MS) {
  const { s3 } = app.config;
  if (s3?.endpoint === undefined) throw new Error("no store is configured");
  const proxy = await S3Proxy.open(s3.endpoint);
  const server = await serverBeside(app, {
    config: { ...app.config, s3: { ...s3, endpoint: proxy.endpoint } },
    commitDeadlineMs,
  });
  const session = await app.aSession();
  let batches = 0;
  return {
    proxy,
    /** Sends a batch with unique content, and returns the status. */
    batch: async () => (await append(server, session, aBatch({ salt: `${++batches}` }))).status,
    readiness: async () => await (await fetch(`${server.url}/readyz`)).json(),
    isReady: async () => (await fetch(`${server.url}/readyz`)).status === 200,
    probes: () => proxy.seen.filter(({ method, path }) => method === "PUT" && isProbe(path)).length,
    [Symbol.asyncDispose]: async () => {
      await server[Symbol.asyncDispose]();
      await proxy[Symbol.asyncDispose]();
    },
  };
}

/** Returns the distinct states of readiness, polled every 100 ms. */
async function during(ms: number, isReady: () => Promise<boolean>): Promise<Set<boolean>> {
  const seen = new Set<boolean>();
  for (const until = performance.now() + ms; performance.now() < until; await Bun.sleep(100))
    seen.add(await isReady());
  return seen;
}

describe("a server is ready", () => {
  test.concurrent("with a key that may neither HEAD nor list the bucket", async () => {
    await using t = await behindProxy();
    t.proxy.selects = ({ method, path }) => method === "HEAD" || !path.includes("x-id=");
    t.proxy.otherwise = DENIED;
    expect(await t.readiness()).toEqual({ status: "ok", postgres: "ok", objects: "ok" });
    expect(await t.batch()).toBe(200);
  });

  test.concurrent("with one that may not read, too", async () => {
    await using t = await behindProxy();
    t.proxy.selects = ({ method }) => method !== "PUT";
    t.proxy.otherwise = DENIED;
    expect(await during(3500, t.isReady)).toEqual(new Set([true]));
    expect(t.probes()).toBeLessThanOrEqual(2);
  });

  test.concurrent("at the price of one PUT, however often it is asked", async () => {
    await using t = await behindProxy();
    expect(await during(3500, t.isReady)).toEqual(new Set([true]));
    expect(t.probes()).toBe(1);
    expect(t.proxy.seen.length).toBeLessThanOrEqual(6);
  });

  test.concurrent("while single writes fail", async () => {
    await using t = await behindProxy();
    expect(await t.isReady()).toBe(true);
    const asking = during(3000, t.isReady);
    t.proxy.selects = ({ method, path }) => method === "PUT" && !isProbe(path);
    for (let nth = 0; nth < 10; nth++) {
      t.proxy.next.push(refuses(503, "SlowDown"));
      expect(await t.batch()).toBe(200);
    }
    expect(await asking).toEqual(new Set([true]));
  });
});

describe("within five seconds a server is not ready, and ready again, when", () => {
  test.concurrent("only writes are refused", async () => {
    await using t = await behindProxy();
    await t.isReady();
    t.proxy.otherwise = DENIED;
    expect(await t.batch()).toBe(503);
    await eventually("not ready", async () => !(await t.isReady()), NOTICED_MS);
    expect(await t.readiness()).toMatchObject({ status: "unavailable", objects: "down" });
    const before = t.probes();
    expect(await during(2500, t.isReady)).toEqual(new Set([false]));
    expect(t.probes() - before).toBeLessThanOrEqual(3);
    t.proxy.selects = () => false;
    await eventually("ready again", t.isReady, NOTICED_MS);
    expect(await t.batch()).toBe(200);
  });

  test.concurrent("writes are never answered", async () => {
    await using t = await behindProxy(NOTICED_MS);
    await t.isReady();
    t.proxy.otherwise = hangs;
    const batch = t.batch();
    await eventually("not ready", async () => !(await t.isReady()), NOTICED_MS + 1000);
    expect(await batch).toBe(503);
    t.proxy.selects = () => false;
    await eventually("ready again", t.isReady, NOTICED_MS);
  });

  test.concurrent("clients' objects are refused and small ones are not", async () => {
    await using t = await behindProxy();
    await t.isReady();
    t.proxy.selects = ({ method, path }) => method === "PUT" && !isProbe(path);
    t.proxy.otherwise = refuses(413, "EntityTooLarge");
    const isNotReady = async () => (await t.batch()) === 503 && !(await t.isReady());
    await eventually("not ready", isNotReady, NOTICED_MS);
    t.proxy.selects = () => false;
    expect(await t.batch()).toBe(200);
    expect(await t.isReady()).toBe(true);
  });
});

test("a write whose answer was lost is found where the store refuses HEAD", async () => {
  await using t = await behindProxy();
  t.proxy.selects = ({ method }) => method === "HEAD";
  t.proxy.otherwise = DENIED;
  expect(await t.batch()).toBe(200);
  t.proxy.selects = ({ method }) => method === "PUT" || method === "HEAD";
  t.proxy.otherwise = async (exchange) =>
    exchange.method === "HEAD" ? await DENIED(exchange) : exchange.answer(await exchange.forward());
  t.proxy.next.push(async ({ forward, reset }) => {
    await forward();
    reset();
  });
  expect(await t.batch()).toBe(200);
});
