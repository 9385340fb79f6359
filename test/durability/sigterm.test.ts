import { describe, expect, setDefaultTimeout, test } from "bun:test";

import { KEYED, TestApp, type TestSession } from "../support/app.ts";
import { aBatch } from "../support/batches.ts";
import { eventually, undelayedMs } from "../support/eventually.ts";
import { Load } from "../support/load.ts";
import { RawConnection } from "../support/raw-connection.ts";
import { append, statusOf } from "../support/requests.ts";
import { ServerProcess, envOf } from "../support/server-process.ts";
import { TcpProxy } from "../support/tcp-proxy.ts";

setDefaultTimeout(60_000);

const EXIT_MS_MAX = 10_000;
const SENDERS = 40;

describe("SIGTERM", () => {
  test.concurrent("under load loses nothing, and a second one does not cut it short", async () => {
    await using app = await TestApp.start();
    const sessions = await Promise.all(Array.from({ length: SENDERS }, () => app.aSession()));
    await using server = await ServerProcess.start(envOf(app));
    const load = new Load(server, sessions);
    const sending = load.run();
    using slow = await beginSlowly(server.url, await app.aSession());
    await Bun.sleep(800);

    const startedMs = undelayedMs();
    server.signal("SIGTERM");
    await eventually("it is not ready", async () => {
      return (await fetch(`${server.url}/readyz`)).status === 503;
    });
    server.signal("SIGTERM");
    // Requests are taken for two seconds more.
    await Bun.sleep(800);
    load.stop();
    await sending;
    server.signal("SIGTERM");
    await Bun.sleep(1500);
    expect(server.isRunning).toBe(true);
    slow.finish();
    expect((await slow.connection.response()).status).toBe(200);

    expect(await server.exited).toBe(0);
    const ms = Math.round(undelayedMs() - startedMs);
    const counts = `${load.acknowledged} acknowledged, ended after ${ms} ms`;
    expect(load.failures, counts).toEqual([]);
    expect(ms, counts).toBeLessThan(EXIT_MS_MAX);
    expect(load.acknowledged, counts).toBeGreaterThan(SENDERS);
    for (const [number, session] of sessions.entries())
      expect(await app.batches(session)).toHaveLength(load.counts[number] ?? 0);
    const rows = await app.sql`select 1 from batches`;
    expect(rows, counts).toHaveLength(load.acknowledged + 1);
  });

  test.concurrent("lets a slow reader have the whole answer that has begun", async () => {
    await using app = await TestApp.start();
    const session = await app.aSession();
    const batches = Array.from({ length: 24 }, (_, i) => aBatch({ bytes: 900_000, salt: `${i}` }));
    for (const batch of batches) expect((await append(app, session, batch)).status).toBe(200);
    await using server = await ServerProcess.start(envOf(app));
    const response = await fetch(`${server.url}/v1/sessions/${session.sessionID}/batches`, {
      headers: { ...KEYED, accept: "application/octet-stream" },
    });
    server.signal("SIGTERM");
    let bytes = 0;
    const [startedMs, startedUndelayedMs] = [performance.now(), undelayedMs()];
    for await (const chunk of response.body ?? []) {
      bytes += chunk.length;
      // About five seconds for all of it.
      await Bun.sleep(Math.max(0, startedMs + bytes / 4400 - performance.now()));
    }
    expect(bytes).toBe(batches.reduce((sum, batch) => sum + 4 + batch.length, 0));
    expect(await server.exited).toBe(0);
    expect(undelayedMs() - startedUndelayedMs).toBeLessThan(EXIT_MS_MAX);
  });

  test.concurrent("while the object store answers nothing still ends within 10 s", async () => {
    await using app = await TestApp.start();
    const session = await app.aSession();
    await using store = await TcpProxy.open(app.url);
    store.freeze();
    await using server = await ServerProcess.start({
      ...envOf(app),
      S3_BUCKET: "none",
      S3_ENDPOINT: store.urlOf(app.url),
      AWS_ACCESS_KEY_ID: "none",
      AWS_SECRET_ACCESS_KEY: "none",
    });
    const answer = statusOf(append(server, session, aBatch()));
    await eventually("the PUT has begun", () => store.connections > 0);
    const startedMs = undelayedMs();
    server.signal("SIGTERM");
    expect(await server.exited).toBe(0);
    expect(undelayedMs() - startedMs).toBeLessThan(EXIT_MS_MAX);
    expect(await answer).toBe(503);
    expect(await app.batches(session)).toEqual([]);
  });
});

/** A request whose body stays half sent until `finish`. */
async function beginSlowly(url: string, { token }: TestSession) {
  const connection = await RawConnection.open(url);
  const batch = aBatch({ salt: "slow" });
  connection.head("POST /v1/ios/append", {
    authorization: `Bearer ${token}`,
    "content-length": batch.length,
  });
  connection.write(batch.subarray(0, 1000));
  return {
    connection,
    finish: () => connection.write(batch.subarray(1000)),
    [Symbol.dispose]: () => connection[Symbol.dispose](),
  };
}
