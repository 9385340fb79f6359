import { expect, test } from "bun:test";

import { messageId } from "../../src/campaigns/message-id.ts";
import { STATUS } from "../../src/campaigns/enums.ts";
import {
  ANDROID,
  CampaignDatabase,
  FakeProvider,
  IPHONE,
  sentAfter,
} from "../support/campaigns.ts";
import { eventually } from "../support/eventually.ts";

const all = CampaignDatabase.forTests();

test("a campaign reaches every device that meets its conditions, and no other", async () => {
  await all.devices(30, ANDROID, { plan: "pro", age: 30 });
  await all.devices(20, IPHONE, { plan: "pro", age: 17 });
  await all.devices(10, ANDROID, { plan: "free" });
  const provider = new FakeProvider();
  const id = await all.launch({ key: "plan", operator: "str_eq", value: "pro" });
  await using _ = all.working(provider);
  await all.reaches(id, STATUS.sent);
  expect(await all.stateOf(id)).toMatchObject({ targeted: 50, android: 30, ios: 20, failed: 0 });
  expect(await all.eventsOf(id)).toEqual({ targeted: 50, sent: 50 });
  expect(new Set(provider.sent.map(({ target }) => target.messageId)).size).toBe(50);
  expect(provider.sent[0]?.message).toMatchObject({ title: "Hello", body: "There is news." });
});

test("what is sent to browsers is counted, too", async () => {
  await all.devices(3, { send: 1, device: 3 });
  const id = await all.launch();
  await using _ = all.working(new FakeProvider());
  await all.reaches(id, STATUS.sent);
  expect(await all.stateOf(id)).toMatchObject({ targeted: 3, android: 0, ios: 0, web: 3 });
});

test("campaigns that meet the same dead tokens at once repeat nothing", async () => {
  await all.devices(1000);
  const provider = new FakeProvider();
  provider.answer = async ({ token }) => {
    await Bun.sleep(Math.random() * 10);
    return Number(token.slice(-1)) % 3 === 0
      ? { kind: "invalid_token", reason: "UNREGISTERED" }
      : { kind: "sent" };
  };
  const ids = await Promise.all(Array.from({ length: 4 }, async () => await all.launch()));
  {
    await using _ = all.working(provider);
    for (const id of ids) await all.reaches(id, STATUS.sent, 20_000);
  }
  expect(provider.repeated).toBe(0);
  for (const id of ids)
    expect(await all.stateOf(id)).toMatchObject({ targeted: 1000, android: 600, failed: 400 });
});

test("an empty audience is sent at once", async () => {
  const id = await all.launch({ key: "plan", operator: "str_eq", value: "none" });
  await using _ = all.working(new FakeProvider());
  await all.reaches(id, STATUS.sent);
  expect(await all.stateOf(id)).toMatchObject({ targeted: 0, failed: 0 });
});

test("a campaign waits for its time", async () => {
  await all.devices(1);
  const provider = new FakeProvider();
  const id = await all.launch({}, "1.5 s");
  await using _ = all.working(provider);
  await Bun.sleep(700);
  expect(provider.sent).toEqual([]);
  await all.reaches(id, STATUS.sent);
  expect(provider.sent.length).toBe(1);
});

test("devices of an unknown platform are recorded as undeliverable and stop nothing", async () => {
  await all.devices(3, { send: 0, device: 1 });
  await all.devices(3, { send: 1, device: 0 });
  await all.devices(3, { send: 2, device: 3 });
  await all.devices(2, { send: 1, device: 3 });
  await all.devices(3);
  const id = await all.launch();
  await using _ = all.working(new FakeProvider());
  await all.reaches(id, STATUS.sent);
  expect(await all.stateOf(id)).toMatchObject({ targeted: 14, android: 3, failed: 9 });
  expect(await all.eventsOf(id)).toEqual({ targeted: 14, sent: 5, undeliverable: 9 });
});

test("a token that the provider knows no more is marked, and not sent to again", async () => {
  await all.devices(4);
  const provider = new FakeProvider();
  provider.answer = ({ token }) =>
    token === "token-1" ? { kind: "invalid_token", reason: "Unregistered" } : { kind: "sent" };
  const first = await all.launch();
  await using _ = all.working(provider);
  await all.reaches(first, STATUS.sent);
  expect(await all.stateOf(first)).toMatchObject({ android: 3, failed: 1 });
  const second = await all.launch();
  await all.reaches(second, STATUS.sent);
  expect(await all.eventsOf(second)).toEqual({ targeted: 4, sent: 3, invalid_token: 1 });
  expect(provider.sent.filter(({ target }) => target.token === "token-1").length).toBe(1);
});

test("a token that was set after the provider last knew it stays valid", async () => {
  await all.devices(1);
  const provider = new FakeProvider();
  const timestamp = Date.now() - 3_600_000;
  provider.answer = () => ({ kind: "invalid_token", reason: "Unregistered", timestamp });
  const id = await all.launch();
  await using _ = all.working(provider);
  await all.reaches(id, STATUS.sent);
  expect((await all.sql`select 1 from devices where token_invalid`).length).toBe(0);
});

test("refused credentials end the campaign with their reason; launched again it goes on where it was", async () => {
  await all.devices(200);
  const provider = new FakeProvider();
  let left = 60;
  provider.answer = () =>
    left-- > 0 ? { kind: "sent" } : { kind: "refused", reason: "InvalidProviderToken" };
  const id = await all.launch();
  await using _ = all.working(provider);
  await all.reaches(id, STATUS.error);
  expect(await all.stateOf(id)).toMatchObject({ error: "InvalidProviderToken" });
  const before = (await all.eventsOf(id))["sent"] ?? 0;
  expect(before).toBeGreaterThan(0);
  provider.answer = () => ({ kind: "sent" });
  await all.sql`update notifications set status = ${STATUS.queued} where id = ${id}`;
  await all.reaches(id, STATUS.sent);
  expect(await all.stateOf(id)).toMatchObject({ targeted: 200, android: 200, failed: 0 });
});

test("a deleted campaign stops within a second or two", async () => {
  await all.devices(5000);
  const provider = new FakeProvider();
  provider.answer = sentAfter(20);
  const id = await all.launch();
  await using _ = all.working(provider);
  await eventually("some are sent", () => provider.sent.length > 100);
  await all.sql`update notifications set status = ${STATUS.deleted} where id = ${id}`;
  await Bun.sleep(1500);
  const stopped = provider.sent.length;
  expect(stopped).toBeLessThan(5000);
  await Bun.sleep(300);
  expect(provider.sent.length).toBe(stopped);
  expect((await all.stateOf(id))?.status).toBe(STATUS.deleted);
});

test("a worker that stops gives the rest to another one, and nobody is sent to twice", async () => {
  await all.devices(2000, IPHONE);
  const provider = new FakeProvider();
  provider.answer = sentAfter(10);
  const id = await all.launch();
  {
    await using _ = all.working(provider);
    await eventually("some are sent", () => provider.sent.length > 200);
  }
  expect((await all.stateOf(id))?.status).toBe(STATUS.launched);
  await using _ = all.working(provider);
  await all.reaches(id, STATUS.sent);
  expect(await all.stateOf(id)).toMatchObject({ targeted: 2000, ios: 2000 });
  expect(provider.sent.length).toBe(2000);
});

test("two workers share campaigns, and each is sent once", async () => {
  await all.devices(300);
  const ids = await Promise.all([all.launch(), all.launch(), all.launch(), all.launch()]);
  const providers = [new FakeProvider(), new FakeProvider()];
  await using workers = new AsyncDisposableStack();
  for (const provider of providers) workers.use(all.working(provider));
  for (const id of ids) await all.reaches(id, STATUS.sent);
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
