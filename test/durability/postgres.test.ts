import { describe, expect, setDefaultTimeout, test } from "bun:test";

import { type ServerOptions } from "../../src/processes/server.ts";
import { KEYED, TestApp, type TestSession } from "../support/app.ts";
import { aBatch } from "../support/batches.ts";
import { eventually, timed } from "../support/eventually.ts";
import { FaultyObjects } from "../support/faulty-objects.ts";
import { indexState } from "../support/index-state.ts";
import { uploadImage } from "../support/images.ts";
import { type ServerBeside, append, serverBeside, statusOf } from "../support/requests.ts";
import { TcpProxy } from "../support/tcp-proxy.ts";

setDefaultTimeout(120_000);

const SHORT_MS = 1500;
// The deadline of a commit, and what a busy machine takes.
const ANSWER_MS_MAX = 16_500;
// The deadline of a commit counts from the first record of its segment, which is two seconds older at
// most.
const WAIT_MS_MIN = 12_000;

describe("a database that is away", () => {
  test("for less than the deadline only delays its batches, which are stored first and indexed once", async () => {
    await using t = await behindProxy();
    await t.proxy.refuse();
    const puts = t.objects.puts.length;
    // One after the other, so that many segments and connections try to get through.
    const requests = Array.from({ length: 40 }, async (_, i) => {
      await Bun.sleep(i * 50);
      return await statusOf(append(t.server, t.session, aBatch({ salt: `${i}` })));
    });
    await eventually("the objects are there before the index", () => t.objects.puts.length > puts);
    await Bun.sleep(2000);
    await t.proxy.restore();
    const { result: statuses, ms } = await timed(() => Promise.all(requests));
    expect(statuses).toEqual(statuses.map(() => 200));
    expect(ms).toBeLessThan(5000);
    await expectStored(t, 40);
  });

  test("for longer is a 503, nothing false is there, and a retry stores the batch once", async () => {
    await using t = await behindProxy({ commitDeadlineMs: SHORT_MS });
    await t.proxy.refuse();
    const { result: response, ms } = await timed(() => append(t.server, t.session, aBatch()));
    await expectRefused(response);
    expect(ms).toBeLessThan(SHORT_MS + 1000);
    await expectStored(t, 0);
    await t.proxy.restore();
    await expectToRecover(t, 5000);
    await expectStored(t, 1);
  });

  test("lets a server keep its projects and sessions, and refuses what it cannot know", async () => {
    await using t = await behindProxy({ commitDeadlineMs: SHORT_MS });
    const unknown = await t.app.aSession();
    await t.proxy.refuse();
    // Longer than the projects are kept without reading them again.
    await Bun.sleep(2500);
    await expectRefused(await append(t.server, unknown, aBatch()));
    await expectRefused(await startOn(t));
    const target = { url: t.server.url, projectID: t.app.projectID };
    await expectRefused(await uploadImage(target, t.session, "image", aBatch()));
    const ready = await fetch(`${t.server.url}/readyz`);
    expect(ready.status).toBe(503);
    expect(await ready.json()).toMatchObject({ postgres: "down", objects: "ok" });
    const reading = await fetch(`${t.server.url}/v1/sessions/${t.session.sessionID}/batches`, {
      headers: KEYED,
    });
    await expectRefused(reading);

    const starting = startOn(t);
    await t.proxy.restore();
    expect((await starting).status).toBe(200);
    await eventually("it is ready", async () => (await fetch(`${t.server.url}/readyz`)).ok, 5000);
  });
});

test("a commit whose outcome is unknown becomes one row and a 200", async () => {
  await using t = await behindProxy();
  for (let i = 1; i <= 5; i++) {
    t.proxy.loseAnswerTo(`{${t.session.sessionID}}`);
    expect(await statusOf(append(t.server, t.session, aBatch({ salt: `${i}` })))).toBe(200);
    expect(t.proxy.lost).toBe(i);
    await expectStored(t, i);
  }
});

test("connections cut while batches are indexed lose and double nothing", async () => {
  await using t = await behindProxy();
  let [answered, before] = [0, -1];
  // A cut comes only after something got through since the last one.
  const cutting = setInterval(() => {
    if (answered > before) t.proxy.cut();
    before = answered;
  }, 150);
  const statuses = await Promise.all(
    Array.from({ length: 100 }, async (_, i) => {
      await Bun.sleep(i * 15);
      const status = await statusOf(append(t.server, t.session, aBatch({ salt: `${i}` })));
      answered++;
      return status;
    }),
  );
  clearInterval(cutting);
  expect(statuses).toEqual(statuses.map(() => 200));
  await expectStored(t, 100);
});

// These wait for a long time, so they do it together.
describe("for long", () => {
  test.concurrent("away, 30 s: batches wait and are answered 503 in time, and soon after it all is as before", async () => {
    await using t = await behindProxy();
    await t.proxy.refuse();
    const restoredMs = performance.now() + 30_000;
    const answers: Promise<{ result: number | string; ms: number; wallMs: number }>[] = [];
    const sentMs: number[] = [];
    for (let i = 0; performance.now() < restoredMs; i++) {
      const batch = aBatch({ salt: `away${i}` });
      sentMs.push(performance.now());
      answers.push(timed(() => statusOf(append(t.server, t.session, batch))));
      await Bun.sleep(500);
    }
    await t.proxy.restore();
    const after = await timed(() => statusOf(append(t.server, t.session, aBatch())));
    expect(after.result).toBe(200);
    expect(after.ms).toBeLessThan(5000);
    const backMs = performance.now();
    const settled = await Promise.all(answers);
    expect(settled.filter(({ result }) => result !== 200 && result !== 503)).toEqual([]);
    expect(settled.filter(({ ms }) => ms > ANSWER_MS_MAX)).toEqual([]);
    expect(settled.filter(({ result, wallMs }) => result === 503 && wallMs < WAIT_MS_MIN)).toEqual(
      [],
    );
    // When the database was back these were still far from their deadline.
    const late = settled.filter((_, i) => backMs - (sentMs[i] ?? 0) < 10_000);
    expect(late.map(({ result }) => result)).toEqual(late.map(() => 200));
    await expectStored(t, 1 + settled.filter(({ result }) => result === 200).length);
  });

  test.concurrent("frozen, 20 s: every request is answered in time, and after it all is as before", async () => {
    await using t = await behindProxy();
    const unknown = await t.app.aSession();
    t.proxy.freeze();
    const thawed = Bun.sleep(20_000).then(() => t.proxy.restore());
    const target = { url: t.server.url, projectID: t.app.projectID };
    const answers = await Promise.all(
      [
        append(t.server, t.session, aBatch()),
        append(t.server, unknown, aBatch()),
        uploadImage(target, t.session, "image", aBatch()),
        startOn(t),
        fetch(`${t.server.url}/v1/sessions/${t.session.sessionID}/batches`, { headers: KEYED }),
        fetch(`${t.server.url}/readyz`),
      ].map((request) => timed(() => statusOf(request))),
    );
    expect(answers.map(({ result }) => result)).toEqual(answers.map(() => 503));
    expect(answers.filter(({ ms }) => ms > ANSWER_MS_MAX)).toEqual([]);
    await thawed;
    await expectToRecover(t, 5000);
    await expectStored(t, 1);
  });

  // A failover without a farewell: the connections to the old server stay open, and nothing answers on them.
  test.concurrent("silent on the connections that were open: new ones take over", async () => {
    await using t = await behindProxy();
    t.proxy.abandon();
    await expectToRecover(t, 25_000);
    await expectStored(t, 1);
  });
});

test("a database that answers nothing delays no batch beyond the deadline", async () => {
  await using t = await behindProxy({ commitDeadlineMs: SHORT_MS });
  t.proxy.freeze();
  const { result: response, ms } = await timed(() => append(t.server, t.session, aBatch()));
  await expectRefused(response);
  expect(ms).toBeLessThan(SHORT_MS + 1000);
  await t.proxy.restore();
  await expectToRecover(t, 5000);
  await expectStored(t, 1);
});

type Proxied = AsyncDisposable & {
  app: TestApp;
  proxy: TcpProxy;
  server: ServerBeside;
  objects: FaultyObjects;
  session: TestSession;
};

/** A server that reaches PostgreSQL through a proxy, and a session that it knows; the test itself has the direct way. */
async function behindProxy(options: ServerOptions = {}): Promise<Proxied> {
  const app = await TestApp.start();
  const proxy = await TcpProxy.open(app.databaseUrl);
  const objects = new FaultyObjects();
  const server = await serverBeside(app, {
    databaseUrl: proxy.urlOf(app.databaseUrl),
    wrapObjects: objects.wrap,
    ...options,
  });
  const session = await sessionOn({ app, server });
  // As many connections as there will be.
  const reading = `${server.url}/v1/sessions/${session.sessionID}`;
  await Promise.all(Array.from({ length: 40 }, () => statusOf(fetch(reading, { headers: KEYED }))));
  const dispose = async () => {
    await proxy.restore();
    await server[Symbol.asyncDispose]();
    await proxy[Symbol.asyncDispose]();
    await app[Symbol.asyncDispose]();
  };
  return { app, proxy, server, objects, session, [Symbol.asyncDispose]: dispose };
}

async function startOn({ app, server }: Pick<Proxied, "app" | "server">): Promise<Response> {
  return await fetch(`${server.url}/v1/ios/start`, {
    method: "POST",
    body: JSON.stringify({ projectID: app.projectID, trackerVersion: "1.0.14" }),
  });
}

/** Starts a session, on a busy machine at the second attempt. */
async function sessionOn(servers: Pick<Proxied, "app" | "server">): Promise<TestSession> {
  for (;;) {
    const response = await startOn(servers);
    const session: TestSession = JSON.parse(await response.text());
    if (response.status === 200) return session;
    expect(response.status).toBe(503);
  }
}

async function expectToRecover({ server, session }: Proxied, withinMs: number): Promise<void> {
  await eventually(
    "a batch is acknowledged",
    async () => (await statusOf(append(server, session, aBatch()))) === 200,
    withinMs,
  );
}

async function expectStored({ app, session }: Proxied, batches: number): Promise<void> {
  expect(await app.batches(session)).toHaveLength(batches);
  const state = await indexState(app.sql, app.objects);
  expect(state).toMatchObject({ batches, distinct: batches, missing: [] });
}

async function expectRefused(response: Response): Promise<void> {
  expect(response.status).toBe(503);
  expect(Number(response.headers.get("retry-after"))).toBeGreaterThan(0);
}
