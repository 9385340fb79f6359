import { beforeAll, describe, expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { PushApi } from "../support/push-api.ts";

const DEVICE = { external_id: "ann", push_token: "t" };
const DRAFT = { title: "t", body: "b", conditions: {} };
const SEARCH = "/devices/-/:search";
const ESTIMATE = "/notifications/-/:estimate";
const LOGS = "/internal/devices/logs/notification:add";

const app = TestApp.forTests({ env: { SERVER_KEYS: "k1" } });
const api = new PushApi(app, { "x-server-key": "k1" });
let uuid: string;

beforeAll(async () => {
  await api.putDevice(DEVICE);
  uuid = (await api.draft()).uuid;
});

function filled(path: string): string {
  return path.replace("{uuid}", uuid);
}

describe("a field that another route takes", () => {
  test.each<[string, string, object, object]>([
    ["PUT", "/devices", DEVICE, { properties: [{ key: "a", value: 1 }] }],
    ["PUT", "/devices", DEVICE, { device_properties: [{ a: 1 }] }],
    ["POST", "/devices/ann/properties/:add", { properties: [] }, { push_token: "t2" }],
    ["POST", SEARCH, {}, { external_id: "ann" }],
    ["POST", "/notifications", DRAFT, { device_ids: [1] }],
    ["POST", "/notifications", DRAFT, { external_id: "ann" }],
    ["PUT", "/notifications/{uuid}/status", { status: 0 }, { device_ids: [1] }],
    ["POST", ESTIMATE, {}, { size: 10 }],
    ["POST", "/notifications/{uuid}/:launch", {}, { scheduled_at: "2030-01-01T00:00:00Z" }],
    ["POST", "/notifications/{uuid}/:launch", {}, { external_ids: ["ann"] }],
    ["POST", LOGS, { device_ids: [], notification_id: 1 }, { external_ids: ["ann"] }],
    ["POST", "/internal/notifications/{uuid}/sent:increase", { ios: 0, android: 0 }, { status: 2 }],
  ])("is refused by name: %s %s %j %j", async (method, path, body, more) => {
    const [name] = Object.keys(more);
    expect(await api.refused(method, filled(path), { ...body, ...more })).toEqual([
      400,
      `${name} has no effect here`,
    ]);
  });

  test("is ignored while it is null, as unknown ones are", async () => {
    const unknown = { extra: 1, properties: null };
    expect(await api.ok("PUT", "/devices", { ...DEVICE, ...unknown })).toMatchObject(DEVICE);
    expect(await api.ok("POST", SEARCH, { foo: {}, status: null })).toBeArray();
    expect(await api.ok("POST", "/notifications", { ...DRAFT, sender: "x" })).toMatchObject({
      title: "t",
    });
  });

  test("may come back with what was answered", async () => {
    const draft = await api.draft({ external_ids: ["ann"], scheduled_at: "2099-01-01T00:00:00Z" });
    const path = `/notifications/${draft.uuid}/status`;
    expect(await api.ok("PUT", path, { ...draft, status: 4 })).toMatchObject({ status: 4 });
    expect(await api.ok("POST", "/notifications", draft)).toMatchObject({ status: 0 });
  });

  test("changes nothing", async () => {
    const before = await api.device("ann");
    await api.refused("PUT", "/devices", { ...DEVICE, push_token: "t9", properties: [] });
    expect(await api.device("ann")).toEqual(before);
    await api.refused("POST", `/notifications/${uuid}/:launch`, { scheduled_at: "2030-01-01" });
    expect(await api.notification(uuid)).toMatchObject({ status: 0 });
  });
});

test.each<[string, unknown]>([
  ["nothing", undefined],
  ["an empty object", {}],
  ["unknown fields", { now: true }],
  ["text", "go"],
  ["a list", []],
  ["null", "null"],
  ["a status", { status: 4 }],
])("a launch may come with %s", async (_what, body) => {
  const { uuid: other } = await api.draft();
  const launched = await api.ok("POST", `/notifications/${other}/:launch`, body);
  expect(launched).toMatchObject({ uuid: other });
});
