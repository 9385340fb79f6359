import { beforeAll, describe, expect, test } from "bun:test";

import { DEVICE_EVENT, type DeviceEventName } from "../../src/campaigns/enums.ts";
import { TestApp } from "../support/app.ts";
import { type Events, type Notification, PushApi } from "../support/push-api.ts";

/** In the order of their ids; the minutes are when they happened. */
const LOG: [event: DeviceEventName, minute: number][] = [
  ["targeted", 5],
  ["sent", 6],
  ["targeted", 3],
  ["failed", 4],
  ["targeted", 1],
  ["invalid_token", 2],
  ["targeted", 2],
  ["undeliverable", 9],
  ["targeted", 7],
  ["sent", 7],
  ["targeted", 8],
  ["failed", 8],
];

const app = TestApp.forTests();
const api = new PushApi(app);
let notification: Notification;

beforeAll(async () => {
  notification = await api.draft({ conditions: { key: "a", operator: "int_eq", value: "1" } });
  const { id } = await api.putDevice({ external_id: "ann" });
  const other = await api.putDevice({ external_id: "bob" });
  await happened(other.id, "sent", 0);
  for (const [event, minute] of LOG) await happened(id, event, minute);
  await happened(other.id, "failed", 9);
});

async function happened(deviceId: number, event: DeviceEventName, minute: number): Promise<void> {
  const at = new Date(Date.UTC(2026, 0, 1, 0, minute));
  await app.sql`
    insert into device_events (device_id, notification_id, launch, event, created_at)
    values (${deviceId}, ${notification.id}, 0, ${DEVICE_EVENT[event]}, ${at})`;
}

function told({ events }: Events): [event: string, minute: number][] {
  return events.map(({ event, created_at: at }) => [event, new Date(at).getUTCMinutes()]);
}

test("the first ten of a device are told by id, with the notification and the total", async () => {
  const answer = await api.events("ann");
  expect(answer.total).toBe(12);
  expect(told(answer)).toEqual(LOG.slice(0, 10));
  expect(answer.events.map((one) => one.notification)).toEqual(
    LOG.slice(0, 10).map(() => notification),
  );
  expect(answer.events[0]?.created_at).toBe("2026-01-01T00:05:00.000Z");
  const ids = answer.events.map(({ id }) => id);
  expect(ids).toEqual([...new Set(ids)].toSorted((a, b) => a - b));
});

test("each device has its own", async () => {
  expect(told(await api.events("bob"))).toEqual([
    ["sent", 0],
    ["failed", 9],
  ]);
  await api.putDevice({ external_id: "carl" });
  expect(await api.events("carl")).toEqual({ total: 0, events: [] });
});

test("the notification is told as it now is", async () => {
  const { uuid } = await api.setStatus(notification.uuid, 2);
  const { events } = await api.events("bob");
  expect(events[0]?.notification).toEqual(await api.notification(uuid));
  notification = await api.notification(uuid);
});

describe("events", () => {
  test.each<[string, string[]]>([
    ["targeted", ["targeted"]],
    ["sent", ["sent"]],
    ["failed,sent", ["failed", "sent"]],
    ["invalid_token", ["invalid_token"]],
    ["undeliverable,undeliverable", ["undeliverable"]],
    ["targeted,sent,failed,invalid_token,undeliverable", Object.keys(DEVICE_EVENT)],
    ["", Object.keys(DEVICE_EVENT)],
  ])("=%s are those, while the total is of all", async (events, names) => {
    const answer = await api.events("ann", `?events=${events}&size=100`);
    expect(answer.total).toBe(12);
    expect(told(answer)).toEqual(LOG.filter(([event]) => names.includes(event)));
  });

  test("may be separated by commas that are encoded", async () => {
    const answer = await api.events("ann", "?events=failed%2Csent");
    expect(told(answer).length).toBe(4);
  });

  test("are paged after they are filtered", async () => {
    const answer = await api.events("ann", "?events=targeted&start=4&size=1");
    expect(told(answer)).toEqual([["targeted", 7]]);
  });

  test.each(["received", "sent,received", "Sent", "1", "targeted;sent", "constructor", "%00"])(
    "=%s has a name that is none",
    async (events) => {
      const path = `/devices/ann/notifications?events=${events}`;
      expect(await api.refused("GET", path)).toEqual([400, expect.stringContaining("events")]);
    },
  );
});

describe("orders and pages", () => {
  const numbered = LOG.map(([event, minute], id) => ({ event, minute, id }));
  type Told = [event: string, minute: number];
  type One = (typeof numbered)[number];

  test.each<[string, (a: One, b: One) => number]>([
    ["", (a, b) => a.id - b.id],
    ["id", (a, b) => a.id - b.id],
    ["-id", (a, b) => b.id - a.id],
    ["created_at", (a, b) => a.minute - b.minute || a.id - b.id],
    ["-created_at", (a, b) => b.minute - a.minute || a.id - b.id],
    ["-created_at,-id", (a, b) => b.minute - a.minute || b.id - a.id],
    ["created_at,-id", (a, b) => a.minute - b.minute || b.id - a.id],
    ["event,-id,,x", (a, b) => b.id - a.id],
    ["-event", (a, b) => a.id - b.id],
  ])("order_bys=%s", async (order, sort) => {
    const sorted = numbered.toSorted(sort).map(({ event, minute }): Told => [event, minute]);
    expect(told(await api.events("ann", `?size=100&order_bys=${order}`))).toEqual(sorted);
    const pages: Told[] = [];
    for (let start = 0; start < 12; start += 5)
      pages.push(...told(await api.events("ann", `?size=5&start=${start}&order_bys=${order}`)));
    expect(pages).toEqual(sorted);
  });

  test.each([
    ["?start=11", 1],
    ["?start=12", 0],
    ["?size=1", 1],
    ["?size=1000", 12],
    ["?size=3&start=10&unknown=1", 2],
  ])("%s", async (query, length) => {
    const { total, events } = await api.events("ann", query);
    expect([total, events.length]).toEqual([12, length]);
  });

  test.each([
    "size=0",
    "size=1001",
    "size=-1",
    "size=x",
    "size=",
    "start=-1",
    "start=1.5",
    "start=1e1",
  ])("%s is refused by name", async (query) => {
    const named = expect.stringContaining(query.slice(0, query.indexOf("=")));
    const path = `/devices/ann/notifications?${query}`;
    expect(await api.refused("GET", path)).toEqual([400, named]);
  });
});
