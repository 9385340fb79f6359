import { describe, expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { PushApi, devicePath } from "../support/push-api.ts";

const app = TestApp.forTests();
const api = new PushApi(app);

describe("PUT /devices", () => {
  test("makes a device, which is then found", async () => {
    const fields = { external_id: "made", push_token: "t", send_platform: 2, device_platform: 3 };
    const made = await api.putDevice(fields);
    expect(made).toMatchObject({ ...fields, device_properties: [] });
    expect(await api.device("made")).toEqual(made);
  });

  test("keeps id, bucket and properties, and takes over the rest", async () => {
    const before = await api.putDevice({ external_id: "kept" });
    await api.setProperties("kept", [{ key: "age", value: 3 }]);
    for (let nth = 0; nth < 5; nth++) {
      const push_token = `token ${nth}`;
      expect(
        await api.putDevice({ external_id: "kept", push_token, send_platform: 2 }),
      ).toStrictEqual({
        ...before,
        push_token,
        send_platform: 2,
        device_properties: [{ age: 3 }],
      });
    }
    expect((await api.putDevice()).id).toBe(before.id + 1);
  });

  test("resets a platform that is left out to 0", async () => {
    const before = await api.putDevice({ external_id: "reset" });
    expect([before.send_platform, before.device_platform]).toEqual([1, 1]);
    const body = { external_id: "reset", push_token: "t" };
    expect(await api.ok("PUT", "/devices", body)).toMatchObject({
      id: before.id,
      send_platform: 0,
      device_platform: 0,
    });
  });

  test("at the same time makes one device", async () => {
    const puts = Array.from({ length: 20 }, (_, nth) =>
      api.putDevice({ external_id: "raced", push_token: `t${nth}` }),
    );
    const ids = (await Promise.all(puts)).map(({ id, random_bucket: bucket }) => [id, bucket]);
    expect(new Set(ids.map(String)).size).toBe(1);
    expect(await api.search({ external_ids: ["raced"] })).toMatchObject({ total: 1 });
  });

  test("gives ids that rise, ids of the property store that differ, and buckets all over the range", async () => {
    const made = [];
    for (let nth = 0; nth < 200; nth++) made.push(await api.putDevice());
    const ids = made.map(({ id }) => id);
    expect(ids).toEqual(ids.toSorted((a, b) => a - b));
    expect(new Set(made.map((device) => Reflect.get(device, "_id"))).size).toBe(200);
    const buckets = made.map(({ random_bucket: bucket }) => bucket);
    expect(Math.min(...buckets)).toBeLessThan(1500);
    expect(Math.max(...buckets)).toBeGreaterThan(8500);
  });

  test("ignores fields that it does not know, and those that are not the caller's", async () => {
    const body = { external_id: "ignores", id: 1, random_bucket: 5, colour: "red", age: null };
    const device = await api.putDevice(body);
    expect(device.id).not.toBe(1);
    expect(await api.device("ignores")).toEqual(device);
  });

  test("takes any content type, and an empty token", async () => {
    const text = JSON.stringify({ external_id: "typed", push_token: "" });
    for (const type of ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
      expect(await api.ok("PUT", "/devices", text, { "content-type": type })).toMatchObject({
        push_token: "",
      });
  });

  test.each<[string, object]>([
    ["external_id", { external_id: undefined }],
    ["external_id", { external_id: null }],
    ["external_id", { external_id: 7 }],
    ["external_id", { external_id: "." }],
    ["external_id", { external_id: "" }],
    ["external_id", { external_id: "x".repeat(256) }],
    ["external_id", { external_id: "a\0b" }],
    ["push_token", { push_token: undefined }],
    ["push_token", { push_token: null }],
    ["push_token", { push_token: 7 }],
    ["push_token", { push_token: "a\0b" }],
    ["send_platform", { send_platform: null }],
    ["send_platform", { send_platform: "1" }],
    ["send_platform", { send_platform: true }],
    ["send_platform", { send_platform: 1.5 }],
    ["send_platform", { send_platform: 3 }],
    ["send_platform", { send_platform: -1 }],
    ["device_platform", { device_platform: null }],
    ["device_platform", { device_platform: "1" }],
    ["device_platform", { device_platform: false }],
    ["device_platform", { device_platform: 4 }],
    ["device_platform", { device_platform: [1] }],
  ])("names %s when it is wrong: %j", async (field, fields) => {
    const body = { external_id: "wrong", push_token: "t", ...fields };
    const refused = await api.refused("PUT", "/devices", body);
    expect(refused).toEqual([400, expect.stringContaining(field)]);
    expect(await api.refused("GET", "/devices/wrong")).toEqual([404, "invalid external_id wrong"]);
  });

  test.each([
    ["is as long as may be", "x".repeat(255)],
    ["has 255 characters outside of the first plane", "😀".repeat(255)],
    ["has all that paths treat otherwise", "𝓍/%2F?#&=+;"],
    ["is a blank", " "],
    ["is the dash of the search", "-"],
    ["begins with a dash", "-x"],
    ["is like an action", ":search"],
    ["is dotted", "a.b..c"],
    ["ends in a slash", "a/"],
    ["is like a word of the routes", "notifications"],
  ])("an id that %s is as good as any", async (_what, externalId) => {
    const device = await api.putDevice({ external_id: externalId });
    expect(device.external_id).toBe(externalId);
    expect(await api.device(externalId)).toEqual(device);
    const changed = await api.setProperties(externalId, [{ key: "k", value: 1 }]);
    expect(changed).toEqual({ ...device, device_properties: [{ k: 1 }] });
    expect(await api.events(externalId)).toEqual({ total: 0, events: [] });
    expect((await api.search({ external_ids: [externalId] })).items).toEqual([changed]);
  });
});

async function after(...changes: [key: string, value: unknown][]): Promise<unknown[]> {
  const { external_id: externalId } = await api.putDevice();
  const properties = changes.map(([key, value]) => ({ key, value }));
  const device = await api.setProperties(externalId, properties);
  expect(await api.device(externalId)).toEqual(device);
  return device.device_properties;
}

describe("properties", () => {
  test.each<[unknown]>([
    ["v"],
    [""],
    ['"quoted" \\ and\nbroken'],
    [1],
    [0],
    [-7],
    [2 ** 53 - 1],
    [1.25],
    [1e-300],
    [true],
    [false],
    [[]],
    [[1, 2, 3]],
    [["a", 1, "b", 2.5]],
    ["2026-01-01T00:00:00Z"],
    ["😀"],
  ])("%j is handed back as it came", async (value) => {
    expect(await after(["key", value])).toStrictEqual([{ key: value }]);
  });

  test.each([
    ["a.b"],
    ["$set"],
    ["a'b"],
    ['a"b'],
    ["a\\b"],
    [" "],
    ["键"],
    ["a\nb"],
    ["__proto__"],
    ["constructor"],
    ["a[0]"],
    ["0".repeat(255)],
    ["💥".repeat(255)],
  ])("the key %j is one like any other", async (key) => {
    const set = await after([key, "v"]);
    expect(set.flatMap((one) => Object.entries(Object(one)))).toEqual([[key, "v"]]);
    expect(await after([key, "v"], [key, null])).toEqual([]);
  });

  test("are ordered by key", async () => {
    const properties = await after(["b", 1], ["10", 2], ["9", 3], ["a", 4], ["B", 5], ["é", 6]);
    expect(properties).toEqual([{ 10: 2 }, { 9: 3 }, { B: 5 }, { a: 4 }, { b: 1 }, { é: 6 }]);
  });

  test("a new value replaces the whole old one, its type included", async () => {
    const { external_id: externalId } = await api.putDevice();
    for (const value of [1, "1", [1, 2], [3], [], true, 2.5]) {
      const device = await api.setProperties(externalId, [{ key: "k", value }]);
      expect(device.device_properties).toStrictEqual([{ k: value }]);
    }
  });

  test("null removes, also what is not there", async () => {
    expect(await after(["a", 1], ["b", 2], ["a", null])).toEqual([{ b: 2 }]);
    expect(await after(["nothing", null])).toEqual([]);
  });

  test("of a key that is given twice the last one counts", async () => {
    expect(await after(["k", 1], ["k", "2"])).toEqual([{ k: "2" }]);
    expect(await after(["k", 1], ["k", null], ["k", 3])).toEqual([{ k: 3 }]);
  });

  test("others stay, and an empty list changes nothing", async () => {
    const { external_id: externalId } = await api.putDevice();
    await api.setProperties(externalId, [{ key: "a", value: 1 }]);
    const device = await api.setProperties(externalId, [{ key: "b", value: 2, extra: 1 }]);
    expect(device.device_properties).toEqual([{ a: 1 }, { b: 2 }]);
    expect(await api.setProperties(externalId, [])).toEqual(device);
  });

  test.each<[string, unknown]>([
    ["properties", undefined],
    ["properties", null],
    ["properties", {}],
    ["properties", "k=v"],
    ["properties[1]", [{ key: "good", value: 1 }, 5]],
    ["key", [{ value: 1 }]],
    ["value", [{ key: "k" }]],
    ["key", [{ key: null, value: 1 }]],
    ["key", [{ key: 5, value: 1 }]],
    ["key", [{ key: "", value: 1 }]],
    ["key", [{ key: "", value: null }]],
    ["key", [{ key: "x".repeat(256), value: 1 }]],
    ["key", [{ key: "a\0b", value: 1 }]],
    ["value", [{ key: "k", value: {} }]],
    ["value", [{ key: "k", value: { a: 1 } }]],
    ["value", [{ key: "k", value: [[1]] }]],
    ["value", [{ key: "k", value: [1, null] }]],
    ["value", [{ key: "k", value: [{}] }]],
    ["value", [{ key: "k", value: "a\0b" }]],
    ["value", [{ key: "k", value: ["a\0b"] }]],
    ['the value of "big"', [{ key: "big", value: 2 ** 53 }]],
    [
      "value",
      [
        { key: "good", value: 1 },
        { key: "k", value: {} },
      ],
    ],
  ])("are refused by naming %s, and nothing is changed: %j", async (named, properties) => {
    const { external_id: externalId } = await api.putDevice();
    const path = devicePath(externalId, "/properties/:add");
    const refused = await api.refused("POST", path, { properties });
    expect(refused).toEqual([400, expect.stringContaining(named)]);
    expect((await api.device(externalId)).device_properties).toEqual([]);
  });

  test("changes of several callers at once are all kept", async () => {
    const { external_id: externalId } = await api.putDevice();
    const keys = Array.from({ length: 20 }, (_, nth) => `k${String(nth).padStart(2, "0")}`);
    await Promise.all(keys.map((key) => api.setProperties(externalId, [{ key, value: key }])));
    const { device_properties: properties } = await api.device(externalId);
    expect(properties).toEqual(keys.map((key) => ({ [key]: key })));
  });
});

describe("an unknown device", () => {
  test.each([["nobody"], ["a/b"], ["a b"], ["é"], ["a%b"], ["--"], ["a\0b"], ["%2F"]])(
    "is 404 with its id: %j",
    async (externalId) => {
      const unknown: [number, string] = [404, `invalid external_id ${externalId}`];
      const add = devicePath(externalId, "/properties/:add");
      const one = { properties: [{ key: "k", value: 1 }] };
      expect(await api.refused("GET", devicePath(externalId))).toEqual(unknown);
      expect(await api.refused("GET", devicePath(externalId, "/notifications"))).toEqual(unknown);
      expect(await api.refused("POST", add, one)).toEqual(unknown);
      expect(await api.refused("POST", add, { properties: [] })).toEqual(unknown);
    },
  );

  test("may be longer than any id, or not be decodable", async () => {
    const long = "x".repeat(3000);
    expect(await api.refused("GET", `/devices/${long}`)).toEqual([
      404,
      `invalid external_id ${long}`,
    ]);
    for (const raw of ["%", "%zz", "%E0%A4%A"]) {
      const [status] = await api.refused("GET", `/devices/${raw}`);
      expect([400, 404]).toContain(status);
    }
  });

  test("comes after what is wrong with the body or the query", async () => {
    const add = "/devices/nobody/properties/:add";
    expect(await api.refused("POST", add, "{")).toEqual([400, "Not JSON type"]);
    expect((await api.refused("POST", add, { properties: 1 }))[0]).toBe(400);
    expect((await api.refused("GET", "/devices/nobody/notifications?size=0"))[0]).toBe(400);
  });
});
