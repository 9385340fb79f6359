import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { pino } from "pino";

import { whereSql } from "../../src/devices/condition-sql.ts";
import { normaliseConditions, parseConditions } from "../../src/devices/conditions.ts";
import { messageId } from "../../src/notifications/campaign.ts";
import { DEVICE_EVENT, STATUS } from "../../src/notifications/enums.ts";
import { type Sender } from "../../src/notifications/sending.ts";
import { Worker } from "../../src/notifications/worker.ts";
import { type Campaign } from "../../src/push/message.ts";
import { type Outcome, type PushTarget } from "../../src/push/outcome.ts";
import { type Sql, openDatabase } from "../../src/platform/database.ts";
import { eventually } from "../support/eventually.ts";
import { freshDatabase } from "../support/postgres.ts";

const LOG = pino({ level: "silent" });

let sql: Sql;

beforeAll(async () => {
  sql = openDatabase(await freshDatabase(), { connections: 4 });
});

afterAll(async () => {
  await sql.end();
});

beforeEach(async () => {
  await sql`truncate devices, device_numbers, notifications, device_events restart identity`;
});

/** Answers each send as a test says, and remembers what was sent. */
class FakeProvider implements Sender<Campaign> {
  readonly canSend = { fcm: true, apns: true };
  readonly concurrency = 50;
  readonly sent: { target: PushTarget; message: Campaign }[] = [];
  answer: (target: PushTarget) => Outcome | Promise<Outcome> = () => ({ kind: "sent" });

  prepare(message: Campaign): Campaign {
    return message;
  }

  async send(target: PushTarget, message: Campaign): Promise<Outcome> {
    this.sent.push({ target, message });
    await Bun.sleep(1);
    return await this.answer(target);
  }
}

/** A worker that works until it is disposed of. */
function working(provider: FakeProvider) {
  const stopping = new AbortController();
  const worker = new Worker({
    sql,
    sender: provider,
    filter: (queryable, conditions) => whereSql(queryable, conditions, "filter"),
    parse: parseConditions,
    log: LOG,
  });
  const done = worker.run(stopping.signal);
  return {
    [Symbol.asyncDispose]: async () => {
      stopping.abort();
      await done;
    },
  };
}

type Kind = { send: number; device: number; invalid?: boolean };
const ANDROID: Kind = { send: 1, device: 1 };
const IPHONE: Kind = { send: 2, device: 2 };

async function devices(count: number, kind: Kind = ANDROID, properties = {}): Promise<void> {
  await sql`
    insert into devices (external_id, push_token, send_platform, device_platform, properties, token_invalid)
    select gen_random_uuid()::text, 'token-' || nth, ${kind.send}, ${kind.device},
      ${JSON.stringify(properties)}::text::jsonb, ${kind.invalid ?? false}
    from generate_series(1, ${count}) as nth`;
}

async function campaign(conditions: unknown = {}, scheduledIn = "0 s"): Promise<number> {
  const tree = JSON.stringify(normaliseConditions(parseConditions(conditions)));
  const [row] = await sql<[{ id: number }]>`
    insert into notifications (title, body, conditions, scheduled_at, status, launch)
    values ('Hello', 'There is news.', ${tree}::text::jsonb, now() + ${scheduledIn}::interval, ${STATUS.queued}, 1)
    returning id::integer`;
  return row.id;
}

async function stateOf(id: number) {
  const [row] = await sql<
    {
      status: number;
      targeted: number;
      failed: number;
      android: number;
      ios: number;
      error: string | null;
    }[]
  >`
    select status, targeted::integer, failed::integer, sent_android::integer as android, sent_ios::integer as ios, error
    from notifications where id = ${id}`;
  return row;
}

async function reaches(id: number, status: number): Promise<void> {
  await eventually(`status ${status}`, async () => (await stateOf(id))?.status === status);
}

async function eventsOf(id: number): Promise<Record<string, number>> {
  const rows = await sql<{ event: number; count: number }[]>`
    select event, count(*)::integer from device_events where notification_id = ${id} group by event`;
  return Object.fromEntries(
    rows.map(({ event, count }) => [
      Object.entries(DEVICE_EVENT).find(([, number]) => number === event)?.[0],
      count,
    ]),
  );
}

test("a campaign reaches every device that meets its conditions, and no other", async () => {
  await devices(30, ANDROID, { plan: "pro", age: 30 });
  await devices(20, IPHONE, { plan: "pro", age: 17 });
  await devices(10, ANDROID, { plan: "free" });
  const provider = new FakeProvider();
  const id = await campaign({ key: "plan", operator: "str_eq", value: "pro" });
  await using _ = working(provider);
  await reaches(id, STATUS.sent);
  expect(await stateOf(id)).toMatchObject({ targeted: 50, android: 30, ios: 20, failed: 0 });
  expect(await eventsOf(id)).toEqual({ targeted: 50, sent: 50 });
  expect(new Set(provider.sent.map(({ target }) => target.apnsId)).size).toBe(50);
  expect(provider.sent[0]?.message).toMatchObject({ title: "Hello", body: "There is news." });
});

test("an empty audience is sent at once", async () => {
  const id = await campaign({ key: "plan", operator: "str_eq", value: "none" });
  await using _ = working(new FakeProvider());
  await reaches(id, STATUS.sent);
  expect(await stateOf(id)).toMatchObject({ targeted: 0, failed: 0 });
});

test("a campaign waits for its time", async () => {
  await devices(1);
  const provider = new FakeProvider();
  const id = await campaign({}, "1.5 s");
  await using _ = working(provider);
  await Bun.sleep(700);
  expect(provider.sent).toEqual([]);
  await reaches(id, STATUS.sent);
  expect(provider.sent.length).toBe(1);
});

test("devices of an unknown platform are recorded as undeliverable and stop nothing", async () => {
  await devices(3, { send: 0, device: 1 });
  await devices(3, { send: 1, device: 0 });
  await devices(3, { send: 2, device: 3 });
  await devices(2, { send: 1, device: 3 });
  await devices(3);
  const id = await campaign();
  await using _ = working(new FakeProvider());
  await reaches(id, STATUS.sent);
  expect(await stateOf(id)).toMatchObject({ targeted: 14, android: 3, failed: 9 });
  expect(await eventsOf(id)).toEqual({ targeted: 14, sent: 5, undeliverable: 9 });
});

test("a token that the provider knows no more is marked, and not sent to again", async () => {
  await devices(4);
  const provider = new FakeProvider();
  provider.answer = ({ token }) =>
    token === "token-1" ? { kind: "invalid_token", reason: "Unregistered" } : { kind: "sent" };
  const first = await campaign();
  await using _ = working(provider);
  await reaches(first, STATUS.sent);
  expect(await stateOf(first)).toMatchObject({ android: 3, failed: 1 });
  const second = await campaign();
  await reaches(second, STATUS.sent);
  expect(await eventsOf(second)).toEqual({ targeted: 4, sent: 3, invalid_token: 1 });
  expect(provider.sent.filter(({ target }) => target.token === "token-1").length).toBe(1);
});

test("a token that was set after the provider last knew it stays valid", async () => {
  await devices(1);
  const provider = new FakeProvider();
  const timestamp = Date.now() - 3_600_000;
  provider.answer = () => ({ kind: "invalid_token", reason: "Unregistered", timestamp });
  const id = await campaign();
  await using _ = working(provider);
  await reaches(id, STATUS.sent);
  expect((await sql`select 1 from devices where token_invalid`).length).toBe(0);
});

test("refused credentials end the campaign with their reason; launched again it goes on where it was", async () => {
  await devices(200);
  const provider = new FakeProvider();
  let left = 60;
  provider.answer = () =>
    left-- > 0 ? { kind: "sent" } : { kind: "refused", reason: "InvalidProviderToken" };
  const id = await campaign();
  await using _ = working(provider);
  await reaches(id, STATUS.error);
  expect(await stateOf(id)).toMatchObject({ error: "InvalidProviderToken" });
  const before = (await eventsOf(id))["sent"] ?? 0;
  expect(before).toBeGreaterThan(0);
  provider.answer = () => ({ kind: "sent" });
  await sql`update notifications set status = ${STATUS.queued} where id = ${id}`;
  await reaches(id, STATUS.sent);
  expect(await stateOf(id)).toMatchObject({ targeted: 200, android: 200, failed: 0 });
});

test("a deleted campaign stops within a second or two", async () => {
  await devices(5000);
  const provider = new FakeProvider();
  provider.answer = async () => {
    await Bun.sleep(20);
    return { kind: "sent" };
  };
  const id = await campaign();
  await using _ = working(provider);
  await eventually("some are sent", () => provider.sent.length > 100);
  await sql`update notifications set status = ${STATUS.deleted} where id = ${id}`;
  await Bun.sleep(1500);
  const stopped = provider.sent.length;
  expect(stopped).toBeLessThan(5000);
  await Bun.sleep(300);
  expect(provider.sent.length).toBe(stopped);
  expect((await stateOf(id))?.status).toBe(STATUS.deleted);
});

test("a worker that stops gives the rest to another one, and nobody is sent to twice", async () => {
  await devices(2000, IPHONE);
  const provider = new FakeProvider();
  provider.answer = async () => {
    await Bun.sleep(10);
    return { kind: "sent" };
  };
  const id = await campaign();
  {
    await using _ = working(provider);
    await eventually("some are sent", () => provider.sent.length > 200);
  }
  expect((await stateOf(id))?.status).toBe(STATUS.launched);
  await using _ = working(provider);
  await reaches(id, STATUS.sent);
  expect(await stateOf(id)).toMatchObject({ targeted: 2000, ios: 2000 });
  expect(provider.sent.length).toBe(2000);
});

test("two workers share campaigns, and each is sent once", async () => {
  await devices(300);
  const ids = await Promise.all([campaign(), campaign(), campaign(), campaign()]);
  const providers = [new FakeProvider(), new FakeProvider()];
  await using workers = new AsyncDisposableStack();
  for (const provider of providers) workers.use(working(provider));
  for (const id of ids) await reaches(id, STATUS.sent);
  expect(providers.flatMap(({ sent }) => sent).length).toBe(1200);
});

test("the id of a message is a UUID that follows from the launch and the device", () => {
  const uuid = "5f0c0f0e-3a51-4a57-9d4b-6f4d6d1c1b1a";
  const id = messageId({ uuid, launch: 1 }, 42);
  expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}$/);
  expect(messageId({ uuid, launch: 1 }, 42)).toBe(id);
  expect(messageId({ uuid, launch: 2 }, 42)).not.toBe(id);
  expect(messageId({ uuid, launch: 1 }, 43)).not.toBe(id);
});
