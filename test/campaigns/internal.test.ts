import { beforeAll, describe, expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { type Device, type Notification, PushApi } from "../support/push-api.ts";

const LOGS = "/internal/devices/logs/notification:add";
const KEY = { "x-server-key": "k1" };
const UNKNOWN = "5f0c0f0e-3a51-4a57-9d4b-6f4d6d1c1b1a";
const REFUSED: [number, string] = [403, "api server key validating failed"];

const app = TestApp.forTests({ env: { SERVER_KEYS: "k1, k2,," } });
const api = new PushApi(app, KEY);
/** The same without the key. */
let stranger: PushApi;

beforeAll(async () => {
  stranger = new PushApi(app);
});

function increasePath(uuid: string): string {
  return `/internal/notifications/${uuid}/sent:increase`;
}

async function log(devices: Pick<Device, "id">[], { id }: Notification): Promise<unknown> {
  return await api.ok("POST", LOGS, {
    device_ids: devices.map((one) => one.id),
    notification_id: id,
  });
}

describe("a key", () => {
  test.each<[string, Record<string, string>]>([
    ["absent", {}],
    ["empty", { "x-server-key": "" }],
    ["blank", { "x-server-key": " " }],
    ["wrong", { "x-server-key": "k3" }],
    ["cut short", { "x-server-key": "k" }],
    ["the whole list", { "x-server-key": "k1, k2,," }],
    ["in another header", { authorization: "Bearer k1" }],
  ])("that is %s opens nothing, whatever else is wrong", async (_what, headers) => {
    const { uuid } = await api.draft();
    for (const path of [LOGS, increasePath(uuid), increasePath(UNKNOWN)])
      for (const body of [{ ios: 1, android: 1 }, "{", "", "[]", "x".repeat(2 ** 20 + 1)])
        expect([path, await stranger.refused("POST", path, body, headers)]).toEqual([
          path,
          REFUSED,
        ]);
    expect(await api.notification(uuid)).toMatchObject({ status: 0, sent: { ios: 0, android: 0 } });
  });

  test("of the list opens, and from anywhere", async () => {
    const notification = await api.draft();
    const body = { device_ids: [], notification_id: notification.id };
    for (const key of ["k1", "k2"])
      for (const from of [{}, { "x-forwarded-for": "192.0.2.1" }, { origin: "https://a.example" }])
        expect(await stranger.ok("POST", LOGS, body, { "x-server-key": key, ...from })).toBe(0);
  });

  test("is none where none is configured, also on this machine", async () => {
    await using closed = await TestApp.start({ env: { SERVER_KEYS: "" } });
    const local = new PushApi(closed);
    expect((await local.refused("POST", "/notifications", {}))[0]).toBe(403);
    for (const headers of [
      {},
      { "x-server-key": "" },
      { "x-server-key": "k1" },
      { "x-server-key": "undefined" },
    ])
      for (const path of [LOGS, increasePath(UNKNOWN)])
        expect(await local.refused("POST", path, { ios: 1, android: 1 }, headers)).toEqual(REFUSED);
  });
});

describe("notification:add", () => {
  test("logs a target for each device and answers how many were logged", async () => {
    const devices = [await api.putDevice(), await api.putDevice()];
    const notification = await api.draft();
    expect(await log(devices, notification)).toBe(2);
    for (const { external_id: externalId } of devices) {
      const { total, events } = await api.events(externalId);
      expect(total).toBe(1);
      expect(events).toEqual([
        { id: expect.any(Number), notification, event: "targeted", created_at: expect.any(String) },
      ]);
    }
  });

  test("of nobody is 0", async () => {
    expect(await log([], await api.draft())).toBe(0);
  });

  test("logs again what it is told again", async () => {
    const device = await api.putDevice();
    const notification = await api.draft();
    expect(await log([device, device], notification)).toBe(2);
    expect(await log([device], notification)).toBe(1);
    expect(await api.events(device.external_id)).toMatchObject({ total: 3 });
  });

  test("leaves out devices that are unknown, and does not count them", async () => {
    const device = await api.putDevice();
    const others = [0, -1, 2 ** 31, Number.MAX_SAFE_INTEGER].map((id) => ({ id }));
    expect(await log([device, ...others], await api.draft())).toBe(1);
    expect(await log(others, await api.draft())).toBe(0);
    expect(await api.events(device.external_id)).toMatchObject({ total: 1 });
  });

  test.each([0, 2 ** 31, Number.MAX_SAFE_INTEGER])("knows no notification %d", async (id) => {
    const device = await api.putDevice();
    const body = { device_ids: [device.id], notification_id: id };
    const named = expect.stringContaining("notification_id");
    expect(await api.refused("POST", LOGS, body)).toEqual([400, named]);
  });

  test.each<[string, object]>([
    ["device_ids", { device_ids: undefined }],
    ["device_ids", { device_ids: null }],
    ["device_ids", { device_ids: 1 }],
    ["device_ids", { device_ids: ["1"] }],
    ["device_ids", { device_ids: [1, true] }],
    ["device_ids", { device_ids: [1.5] }],
    ["device_ids", { device_ids: [null] }],
    ["device_ids", { device_ids: [2 ** 63] }],
    ["notification_id", { notification_id: undefined }],
    ["notification_id", { notification_id: null }],
    ["notification_id", { notification_id: "1" }],
    ["notification_id", { notification_id: true }],
    ["notification_id", { notification_id: 1.5 }],
    ["notification_id", { notification_id: UNKNOWN }],
  ])("names %s when it is wrong: %j", async (field, fields) => {
    const { id } = await api.draft();
    const body = { device_ids: [], notification_id: id, ...fields };
    expect(await api.refused("POST", LOGS, body)).toEqual([400, expect.stringContaining(field)]);
  });
});

async function increase({ uuid }: Notification, ios: number, android: number): Promise<unknown> {
  return await api.ok("POST", increasePath(uuid), { ios, android, web: 5 });
}

describe("sent:increase", () => {
  test("adds, and answers what the counters then are", async () => {
    const draft = await api.draft();
    expect(await increase(draft, 1, 2)).toStrictEqual({ ios: 1, android: 2 });
    expect(await increase(draft, 10, 0)).toStrictEqual({ ios: 11, android: 2 });
    expect(await increase(draft, 0, 0)).toStrictEqual({ ios: 11, android: 2 });
    expect(await api.notification(draft.uuid)).toMatchObject({ sent: { android: 2, ios: 11 } });
  });

  test("makes a draft sent", async () => {
    const draft = await api.draft();
    await increase(draft, 0, 0);
    const { status, modified_at: modified } = await api.notification(draft.uuid);
    expect([status, modified]).toEqual([2, expect.any(String)]);
  });

  test.each([2, 3, 4])("leaves status %d alone", async (status) => {
    const { uuid } = await api.draft();
    const before = await api.setStatus(uuid, status);
    await increase(before, 1, 1);
    expect(await api.notification(uuid)).toEqual({ ...before, sent: { android: 1, ios: 1 } });
  });

  test("loses nothing beside others and changes of the status", async () => {
    const draft = await api.draft();
    await Promise.all(
      Array.from({ length: 30 }, (_, nth) =>
        nth % 3 === 0 ? api.setStatus(draft.uuid, nth % 6) : increase(draft, 1, 2),
      ),
    );
    expect(await api.notification(draft.uuid)).toMatchObject({ sent: { ios: 20, android: 40 } });
  });

  test("counts further than 32 bits", async () => {
    const draft = await api.draft();
    await increase(draft, 2 ** 31 - 1, 1);
    expect(await increase(draft, 2 ** 31 - 1, 1)).toStrictEqual({ ios: 2 ** 32 - 2, android: 2 });
  });

  test.each<[string, object]>([
    ["ios", { ios: undefined }],
    ["ios", { ios: null }],
    ["ios", { ios: "1" }],
    ["ios", { ios: true }],
    ["ios", { ios: 1.5 }],
    ["android", { android: undefined }],
    ["android", { android: null }],
    ["android", { android: [1] }],
    ["android", { android: false }],
    ["android", { android: 1e300 }],
  ])("names %s when it is wrong, also of an unknown one: %j", async (field, fields) => {
    const draft = await api.draft();
    for (const uuid of [draft.uuid, UNKNOWN]) {
      const body = { ios: 1, android: 1, ...fields };
      const named = expect.stringContaining(field);
      expect(await api.refused("POST", increasePath(uuid), body)).toEqual([400, named]);
    }
    expect(await api.notification(draft.uuid)).toEqual(draft);
  });

  test.each([UNKNOWN, "1", "-", "a%2Fb"])("knows no notification %s", async (uuid) => {
    const reason = `notification not found ${decodeURIComponent(uuid)}`;
    const body = { ios: 1, android: 1 };
    expect(await api.refused("POST", increasePath(uuid), body)).toEqual([404, reason]);
  });
});
