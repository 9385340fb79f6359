import { expect, test } from "bun:test";

import { STATUS } from "../../src/campaigns/enums.ts";
import { openDatabase } from "../../src/platform/database/database.ts";
import { type Outcome } from "../../src/push/outcome.ts";
import {
  ANDROID,
  CampaignDatabase,
  FakeProvider,
  IPHONE,
  sentAfter,
} from "../support/campaigns.ts";
import { eventually } from "../support/eventually.ts";
import { TcpProxy } from "../support/tcp-proxy.ts";

// Every audience here is larger than what a worker sends at a time.

const all = CampaignDatabase.forTests();

/** As a sender does that tries again and again until it is told to stop. */
async function away(signal: AbortSignal): Promise<Outcome> {
  const { promise, reject } = Promise.withResolvers<Outcome>();
  signal.addEventListener("abort", () => reject(signal.reason));
  if (signal.aborted) reject(signal.reason);
  return await promise;
}

test("credentials that are refused for all of a large audience end the campaign, and the worker stops when told", async () => {
  await all.devices(500);
  const provider = new FakeProvider();
  provider.answer = () => ({ kind: "refused", reason: "InvalidProviderToken" });
  const id = await all.launch();
  await using _ = all.working(provider);
  await all.reaches(id, STATUS.error);
  expect(await all.stateOf(id)).toMatchObject({ error: "InvalidProviderToken", android: 0 });
});

test("a campaign that is deleted while its provider is away leaves the worker free for others", async () => {
  await all.devices(500);
  const provider = new FakeProvider();
  provider.answer = async (_target, signal) => await away(signal);
  const first = await all.launch();
  await using _ = all.working(provider);
  await eventually("all slots are taken", () => provider.sent.length === 25);
  await all.sql`update notifications set status = ${STATUS.deleted} where id = ${first}`;
  provider.answer = () => ({ kind: "sent" });
  const second = await all.launch();
  await all.reaches(second, STATUS.sent);
  expect(await all.stateOf(second)).toMatchObject({ targeted: 500, android: 500 });
});

test("a worker that is told to stop while the provider is away stops, and another goes on", async () => {
  await all.devices(500);
  const provider = new FakeProvider();
  provider.answer = async (_target, signal) => await away(signal);
  const id = await all.launch();
  {
    await using _ = all.working(provider);
    await eventually("all slots are taken", () => provider.sent.length === 25);
  }
  provider.answer = () => ({ kind: "sent" });
  await using _ = all.working(provider);
  await all.reaches(id, STATUS.sent);
  expect(await all.stateOf(id)).toMatchObject({ targeted: 500, android: 500, failed: 0 });
});

test("a provider that is away does not keep the other one's campaigns waiting", async () => {
  await all.devices(500, ANDROID, { group: "a" });
  await all.devices(100, IPHONE, { group: "b" });
  const provider = new FakeProvider();
  provider.answer = async ({ provider: name }, signal) =>
    name === "fcm" ? await away(signal) : { kind: "sent" };
  await all.launch();
  const id = await all.launch({ key: "group", operator: "str_eq", value: "b" });
  await using _ = all.working(provider);
  await all.reaches(id, STATUS.sent);
  expect(await all.stateOf(id)).toMatchObject({ ios: 100 });
});

test("a provider that is away keeps only its own devices of a campaign waiting", async () => {
  await all.devices(600, ANDROID);
  await all.devices(1200, IPHONE);
  await all.devices(600, ANDROID);
  await all.devices(1200, IPHONE);
  const provider = new FakeProvider();
  let isAway = true;
  const back = Promise.withResolvers<void>();
  provider.answer = async ({ provider: name }) => {
    if (name === "fcm" && isAway) await back.promise;
    return { kind: "sent" };
  };
  const id = await all.launch();
  await using _ = all.working(provider);
  await eventually(
    "the other one's are sent",
    async () => (await all.stateOf(id))?.ios === 2400,
    10_000,
  );
  expect(await all.stateOf(id)).toMatchObject({ status: STATUS.launched, android: 0 });
  isAway = false;
  back.resolve();
  await all.reaches(id, STATUS.sent, 20_000);
  expect(await all.stateOf(id)).toMatchObject({ targeted: 3600, android: 1200, ios: 2400 });
  expect(provider.repeated).toBe(0);
});

test("while a campaign's only provider is away it targets no more than it can begin", async () => {
  await all.devices(4000);
  const provider = new FakeProvider();
  provider.answer = async (_target, signal) => await away(signal);
  const id = await all.launch();
  await using _ = all.working(provider);
  await Bun.sleep(2500);
  expect((await all.stateOf(id))?.targeted).toBeLessThanOrEqual(3000);
});

test("a campaign that is stopped while it waits for the slots of another one is given back at once", async () => {
  await all.devices(100, ANDROID, { group: "a" });
  await all.devices(100, ANDROID, { group: "b" });
  const stuck = new FakeProvider();
  stuck.answer = async (_target, signal) => await away(signal);
  await all.launch({ key: "group", operator: "str_eq", value: "a" });
  await using _ = all.working(stuck);
  await eventually("the slots are taken", () => stuck.sent.length === 25);
  const id = await all.launch({ key: "group", operator: "str_eq", value: "b" });
  await all.reaches(id, STATUS.launched);
  await all.sql`update notifications set status = ${STATUS.error} where id = ${id}`;
  const isFree = async () => {
    const [row] = await all.sql<[{ free: boolean }]>`
      select worker is null as free from notifications where id = ${id}`;
    return row.free;
  };
  await eventually("it is given back", isFree, 3000);
});

test("connections to the database that are cut while outcomes are recorded repeat nothing", async () => {
  await all.devices(3000);
  await using proxy = await TcpProxy.open(all.databaseUrl);
  const sql = openDatabase(proxy.urlOf(all.databaseUrl), { connections: 4 });
  const provider = new FakeProvider();
  const id = await all.launch();
  {
    await using _ = all.working(provider, sql);
    for (let cut = 1; cut <= 3; cut++) {
      await eventually("some are sent", () => provider.sent.length > cut * 600);
      proxy.cut();
    }
    await all.reaches(id, STATUS.sent, 20_000);
  }
  await sql.end();
  expect(await all.stateOf(id)).toMatchObject({ targeted: 3000, android: 3000, failed: 0 });
  expect(provider.repeated).toBe(0);
});

test("what is under way when a campaign is stopped and launched again is not sent twice", async () => {
  await all.devices(200);
  const provider = new FakeProvider();
  provider.answer = sentAfter(5000);
  const id = await all.launch();
  await using _ = all.working(provider);
  await eventually("the slots are taken", () => provider.sent.length === 25);
  await all.sql`update notifications set status = ${STATUS.error} where id = ${id}`;
  await Bun.sleep(1000);
  await all.sql`update notifications set status = ${STATUS.queued} where id = ${id}`;
  await eventually(
    "they are recorded",
    async () => ((await all.stateOf(id))?.android ?? 0) >= 25,
    10_000,
  );
  provider.answer = () => ({ kind: "sent" });
  await all.reaches(id, STATUS.sent, 20_000);
  expect(await all.stateOf(id)).toMatchObject({ targeted: 200, android: 200 });
  expect(provider.repeated).toBe(0);
});

test("a database that is away for seconds delays a campaign, and no more is repeated than was under way", async () => {
  await all.devices(2000);
  await using proxy = await TcpProxy.open(all.databaseUrl);
  const sql = openDatabase(proxy.urlOf(all.databaseUrl), { connections: 4 });
  const provider = new FakeProvider();
  provider.answer = sentAfter(20);
  const id = await all.launch();
  {
    await using _ = all.working(provider, sql);
    await eventually("some are sent", () => provider.sent.length > 200);
    await proxy.refuse();
    await Bun.sleep(4000);
    await proxy.restore();
    await all.reaches(id, STATUS.sent, 20_000);
  }
  await sql.end();
  expect(await all.stateOf(id)).toMatchObject({ targeted: 2000, android: 2000, failed: 0 });
  expect(provider.repeated).toBeLessThanOrEqual(provider.concurrency);
});

test("a worker that loses its lease for a moment repeats no more than was under way", async () => {
  await all.devices(3000);
  const provider = new FakeProvider();
  provider.answer = sentAfter(10);
  const id = await all.launch();
  await using _ = all.working(provider);
  await eventually("some are sent", () => provider.sent.length > 200);
  // As if the process had been frozen for longer than a lease.
  await all.sql`update notifications set leased_until = now() - interval '1 second' where id = ${id}`;
  const frozenUntil = performance.now() + 3200;
  while (performance.now() < frozenUntil);
  await all.reaches(id, STATUS.sent, 20_000);
  expect(await all.stateOf(id)).toMatchObject({ targeted: 3000, android: 3000, failed: 0 });
  expect(provider.repeated).toBeLessThanOrEqual(provider.concurrency);
});

test("a launch that is begun anew while the one before hangs reaches everybody, and counts only its own", async () => {
  await all.devices(200, IPHONE);
  const provider = new FakeProvider();
  const { promise: later, resolve: release } = Promise.withResolvers<void>();
  provider.answer = async () => {
    await later;
    return { kind: "sent" };
  };
  const id = await all.launch();
  await using _ = all.working(provider);
  await eventually("all slots are taken", () => provider.sent.length === 25);
  await all.sql`
    update notifications set status = ${STATUS.queued}, launch = launch + 1, device_cursor = 0, done_cursor = 0, targeted = 0
    where id = ${id}`;
  await Bun.sleep(1000);
  release();
  await all.reaches(id, STATUS.sent);
  expect(await all.stateOf(id)).toMatchObject({ targeted: 200, ios: 200, failed: 0 });
  const reached = new Set(
    provider.sent
      .filter(({ message }) => message.launch === 2)
      .map(({ target }) => target.messageId),
  );
  expect(reached.size).toBe(200);
});

test("a token that was changed while the old one was refused stays valid", async () => {
  await all.devices(1);
  const provider = new FakeProvider();
  provider.answer = async () => {
    await all.sql`update devices set push_token = 'new'`;
    return { kind: "invalid_token", reason: "UNREGISTERED" };
  };
  const id = await all.launch();
  await using _ = all.working(provider);
  await all.reaches(id, STATUS.sent);
  expect((await all.sql`select 1 from devices where token_invalid`).length).toBe(0);
});

test("wide gaps between the ids of devices cost nothing", async () => {
  await all.devices(1);
  await all.sql`select setval(pg_get_serial_sequence('devices', 'id'), 4000000000)`;
  await all.devices(1);
  const id = await all.launch();
  await using _ = all.working(new FakeProvider());
  await all.reaches(id, STATUS.sent, 3000);
  expect(await all.stateOf(id)).toMatchObject({ targeted: 2, android: 2 });
});
