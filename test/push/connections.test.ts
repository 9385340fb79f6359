import { expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { eventually, timed } from "../support/eventually.ts";
import { freePort } from "../support/free-port.ts";
import { tally, TestSender } from "../support/push-sender.ts";
import {
  apnsConfig,
  apnsError,
  apnsTarget,
  OK,
  PushServer,
  type Received,
} from "../support/push-servers.ts";
import { startRefusingServer } from "../support/refusing-server.ts";
import { TcpProxy } from "../support/tcp-proxy.ts";

const sendMany = (sender: TestSender, count: number) =>
  Promise.all(Array.from({ length: count }, (_, n) => sender.sendTo(apnsTarget(n))));

const apnsIds = (received: Received[]) =>
  new Set(received.map(({ headers }) => headers["apns-id"]));

test("two thousand sends at a time are all answered, on few connections", async () => {
  await using apns = await PushServer.start(() => ({ status: 200, delayMs: 50 }));
  await using sender = new TestSender({ apns: apnsConfig(apns.url) });
  expect(tally(await sendMany(sender, 2000))).toEqual({ sent: 2000 });
  expect(apns.received).toHaveLength(2000);
  expect(apnsIds(apns.received).size).toBe(2000);
  expect(apns.sessions).toBeLessThanOrEqual(4);
});

test("large payloads pass through the windows that a peer opens by default", async () => {
  await using apns = await PushServer.start();
  await using sender = new TestSender({ apns: apnsConfig(apns.url) });
  const body = "b".repeat(3900);
  const outcomes = await Promise.all(
    Array.from({ length: 1000 }, (_, n) => sender.sendTo(apnsTarget(n), { body })),
  );
  expect(tally(outcomes)).toEqual({ sent: 1000 });
  expect(apns.received.every((request) => JSON.parse(request.body).aps.alert.body === body)).toBe(
    true,
  );
});

test("no session has more streams than its peer allows, and there are at most 16 of them", async () => {
  const running = new Map<unknown, number>();
  let most = 0;
  await using apns = await PushServer.start(
    ({ session }) => {
      const now = (running.get(session) ?? 0) + 1;
      running.set(session, now);
      most = Math.max(most, now);
      setTimeout(() => running.set(session, (running.get(session) ?? 1) - 1), 9);
      return { status: 200, delayMs: 10 };
    },
    { streams: 5 },
  );
  await using sender = new TestSender({ apns: apnsConfig(apns.url) });
  expect(tally(await sendMany(sender, 1000))).toEqual({ sent: 1000 });
  expect(most).toBeLessThanOrEqual(5);
  expect(sender.counts.apns).toEqual({ requests: 1000, retries: 0, unprocessed: 0 });
  expect(apns.sessions).toBeGreaterThan(2);
  expect(apns.sessions).toBeLessThanOrEqual(16);
});

test("a GOAWAY every 40 streams loses none, fails none and sends none twice", async () => {
  const counts = new Map<unknown, number>();
  let farewells = 0;
  await using apns = await PushServer.start(({ session, streamId }) => {
    const count = (counts.get(session) ?? 0) + 1;
    counts.set(session, count);
    if (count === 40) {
      farewells += 1;
      session.goaway(0, streamId);
    }
    return { status: 200, delayMs: 5 };
  });
  await using sender = new TestSender({ apns: apnsConfig(apns.url) });
  expect(tally(await sendMany(sender, 2000))).toEqual({ sent: 2000 });
  expect(farewells).toBeGreaterThan(10);
  expect(sender.counts.apns?.unprocessed).toBeGreaterThan(0);
  expect(apnsIds(apns.received).size).toBe(2000);
  await eventually("only the live sessions remain", () => apns.openSessions <= 4);
});

test("a session that closes for new streams finishes those it has", async () => {
  await using apns = await PushServer.start(({ number, session }) => {
    if (number % 50 === 0) session.close();
    return { status: 200, delayMs: 10 };
  });
  await using sender = new TestSender({ apns: apnsConfig(apns.url) });
  expect(tally(await sendMany(sender, 500))).toEqual({ sent: 500 });
  expect(apnsIds(apns.received).size).toBe(500);
});

test("a session that dies with streams in flight has them sent again with their ids", async () => {
  await using apns = await PushServer.start(({ number }) =>
    number % 150 === 0 && number < 600 ? "kill session" : { status: 200, delayMs: 5 },
  );
  await using sender = new TestSender({ apns: apnsConfig(apns.url) });
  expect(tally(await sendMany(sender, 500))).toEqual({ sent: 500 });
  expect(apnsIds(apns.received).size).toBe(500);
  expect(apns.received.length).toBeGreaterThan(500);
});

test("streams that the peer refuses are no attempts", async () => {
  await using apns = await startRefusingServer(20);
  await using sender = new TestSender(
    { apns: apnsConfig(apns.url) },
    { persistence: { attempts: 1 } },
  );
  expect(tally(await sendMany(sender, 10))).toEqual({ sent: 10 });
  expect(sender.counts.apns?.unprocessed).toBeGreaterThanOrEqual(20);
});

test("a peer that refuses every stream fails the push after the deadline", async () => {
  await using apns = await startRefusingServer(Infinity);
  await using sender = new TestSender(
    { apns: apnsConfig(apns.url) },
    { persistence: { deadlineMs: 200 } },
  );
  expect(await sender.sendTo(apnsTarget())).toEqual({ kind: "failed", reason: "never processed" });
});

test("streams that are reset are attempts", async () => {
  await using apns = await PushServer.start(({ number }) => (number <= 2 ? "reset" : OK));
  await using sender = new TestSender({ apns: apnsConfig(apns.url) });
  expect(await sender.sendTo(apnsTarget())).toEqual({ kind: "sent" });
  expect(apns.received).toHaveLength(3);
});

test("a stream without an answer is given up, and sent again on another connection", async () => {
  await using apns = await PushServer.start(({ number }) => (number === 1 ? "stall" : OK));
  await using sender = new TestSender(
    { apns: apnsConfig(apns.url) },
    { limits: { streamMs: 100 } },
  );
  expect(await sender.sendTo(apnsTarget())).toEqual({ kind: "sent" });
  const [first, second] = apns.received;
  expect(second?.headers["apns-id"]).toBe(first?.headers["apns-id"] ?? "");
  expect(second?.session).not.toBe(first?.session);
});

test("a provider that answers nothing at all fails the push in bounded time", async () => {
  await using apns = await PushServer.start(() => "stall");
  await using sender = new TestSender(
    { apns: apnsConfig(apns.url) },
    { limits: { streamMs: 50 }, persistence: { attempts: 3 } },
  );
  expect(await sender.sendTo(apnsTarget())).toEqual({
    kind: "failed",
    reason: "apns: no answer within 50 ms",
  });
  expect(apns.received).toHaveLength(3);
});

test("a connection that died without a word is noticed by its silence", async () => {
  await using apns = await PushServer.start();
  await using proxy = await TcpProxy.open(apns.url);
  await using sender = new TestSender(
    { apns: apnsConfig(proxy.urlOf(apns.url)) },
    { limits: { silenceMs: 50, pongMs: 50 } },
  );
  await sendMany(sender, 10);
  proxy.abandon();
  const { result, ms } = await timed(() => sendMany(sender, 10));
  expect(tally(result)).toEqual({ sent: 10 });
  expect(ms).toBeLessThan(5000);
});

test("a peer that takes connections and says nothing is given up, and others are tried", async () => {
  await using apns = await PushServer.start();
  await using proxy = await TcpProxy.open(apns.url);
  await using sender = new TestSender(
    { apns: apnsConfig(proxy.urlOf(apns.url)) },
    { limits: { connectMs: 50 } },
  );
  proxy.freeze();
  const sending = sendMany(sender, 10);
  await Bun.sleep(200);
  await proxy.restore();
  expect(tally(await sending)).toEqual({ sent: 10 });
});

test("while there is no connection pushes wait, and go out when the provider is back", async () => {
  await using apns = await PushServer.start();
  await using proxy = await TcpProxy.open(apns.url);
  await using sender = new TestSender({ apns: apnsConfig(proxy.urlOf(apns.url)) });
  await sendMany(sender, 10);
  await proxy.refuse();
  const sending = sendMany(sender, 200);
  await Bun.sleep(150);
  await proxy.restore();
  expect(tally(await sending)).toEqual({ sent: 200 });
});

test("a provider that cannot be reached fails the push in bounded time", async () => {
  await using sender = new TestSender(
    { apns: apnsConfig(`http://127.0.0.1:${await freePort()}`) },
    { limits: { waitMs: 50 }, persistence: { attempts: 2 } },
  );
  expect(await sender.sendTo(apnsTarget())).toEqual({
    kind: "failed",
    reason: "apns: the connection failed: ECONNREFUSED",
  });
});

test("connections that nobody uses are closed, and opened again when needed", async () => {
  await using apns = await PushServer.start();
  await using sender = new TestSender({ apns: apnsConfig(apns.url) }, { limits: { idleMs: 50 } });
  await sendMany(sender, 3);
  await eventually("no session is open", () => apns.openSessions === 0);
  expect(tally(await sendMany(sender, 3))).toEqual({ sent: 3 });
  expect(sender.logged.filter((line) => line.includes("away"))).toEqual([]);
});

test("disposing ends what waits and what is in flight", async () => {
  await using apns = await PushServer.start(({ number }) =>
    number === 1 ? "stall" : apnsError(503, "ServiceUnavailable"),
  );
  const sender = new TestSender(
    { apns: apnsConfig(apns.url) },
    { persistence: { backoff: { baseMs: 60_000, capMs: 60_000 } } },
  );
  const sending = Promise.allSettled([1, 2, 3].map((n) => sender.sendTo(apnsTarget(n))));
  await eventually("all arrived", () => apns.received.length === 3);
  const { ms } = await timed(() => sender[Symbol.asyncDispose]());
  expect((await sending).map(({ status }) => status)).toEqual(["rejected", "rejected", "rejected"]);
  expect(ms).toBeLessThan(1000);
  await eventually("no session is open", () => apns.openSessions === 0);
});

test("over TLS as in production, and not with a certificate nobody vouches for", async () => {
  const folder = await mkdtemp(join(tmpdir(), "push-tls-"));
  try {
    const [key, cert] = [join(folder, "key.pem"), join(folder, "cert.pem")];
    const names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"];
    const kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    await Bun.$`openssl req -x509 ${kind} ${names} -keyout ${key} -out ${cert}`.quiet();
    const tls = { key: await Bun.file(key).text(), cert: await Bun.file(cert).text() };
    await using apns = await PushServer.start(() => OK, { tls });
    await using sender = new TestSender({ apns: apnsConfig(apns.url) }, { tls: { ca: tls.cert } });
    expect(tally(await sendMany(sender, 100))).toEqual({ sent: 100 });
    await using wary = new TestSender(
      { apns: apnsConfig(apns.url) },
      { limits: { waitMs: 50 }, persistence: { attempts: 1 } },
    );
    expect(await wary.sendTo(apnsTarget())).toMatchObject({ kind: "failed" });
    expect(apns.received).toHaveLength(100);
  } finally {
    await rm(folder, { recursive: true });
  }
});
