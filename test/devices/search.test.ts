import { beforeAll, describe, expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { type Device, PushApi } from "../support/push-api.ts";

const SEARCH = "/devices/-/:search";
const ESTIMATE = "/notifications/-/:estimate";

/** The ages of the fourteen devices d00 to d13, of which every third is a VIP. */
const AGES = [30, 20, 10, 18, 17, 19, 18, 5.5, "18", [1, 40], ["18", 18], true, [], 65];

const app = TestApp.forTests();
const api = new PushApi(app);
let devices: Device[];

beforeAll(async () => {
  devices = [];
  for (const [nth, age] of AGES.entries()) {
    const externalId = `d${String(nth).padStart(2, "0")}`;
    // Ids of the platforms repeat, so that several keys of an order matter.
    const fields = { send_platform: nth % 3, device_platform: nth % 2, push_token: `t${nth}` };
    await api.putDevice({ external_id: externalId, ...fields });
    const tags = nth % 3 === 0 ? ["vip", "new"] : ["new"];
    const properties = [
      { key: "age", value: age },
      { key: "tags", value: tags },
      { key: "plan", value: nth < 2 ? "pro" : "free" },
    ];
    devices.push(await api.setProperties(externalId, properties));
  }
});

function names(page: Device[]): string[] {
  return page.map(({ external_id: externalId }) => externalId);
}

async function found(conditions: object): Promise<string[]> {
  return names((await api.search({ conditions, size: 100 })).items);
}

function leaf(key: string, operator: string, value: string) {
  return { key, operator, value };
}

test("without anything every device is found, by id, ten of them, with their total", async () => {
  expect(await api.search({})).toEqual({ total: 14, items: devices.slice(0, 10) });
});

describe("conditions", () => {
  const vip = leaf("tags", "str_exists", "vip");
  const grown = leaf("age", "int_gte", "18");
  const pro = leaf("plan", "str_eq", "pro");
  const nobody = leaf("none", "str_eq", "");
  const all = AGES.map((_, nth) => `d${String(nth).padStart(2, "0")}`);

  test.each<[string, object, string[]]>([
    ["nothing", {}, all],
    ["a node of nulls", { conditions: null, key: null, value: null }, all],
    ["int_eq", leaf("age", "int_eq", "18"), ["d03", "d06", "d10"]],
    ["int_eq with a sign and blanks", leaf("age", "int_eq", " +18 "), ["d03", "d06", "d10"]],
    ["int_gt", leaf("age", "int_gt", "19"), ["d00", "d01", "d09", "d13"]],
    ["int_gte", leaf("age", "int_gte", "20"), ["d00", "d01", "d09", "d13"]],
    ["int_lt", leaf("age", "int_lt", "10"), ["d07", "d09"]],
    ["int_lte", leaf("age", "int_lte", "10"), ["d02", "d07", "d09"]],
    [
      "int_gt of a fraction",
      leaf("age", "int_gt", "5"),
      all.filter((_, n) => n < 8 || [9, 10, 13].includes(n)),
    ],
    ["str_eq", pro, ["d00", "d01"]],
    ["str_eq of what is a number elsewhere", leaf("age", "str_eq", "18"), ["d08", "d10"]],
    ["str_eq by case", leaf("plan", "str_eq", "PRO"), []],
    ["str_eq on a list", leaf("tags", "str_eq", "vip"), ["d00", "d03", "d06", "d09", "d12"]],
    ["str_exists", vip, ["d00", "d03", "d06", "d09", "d12"]],
    ["str_exists on a text", leaf("plan", "str_exists", "pro"), []],
    ["str_exists of a part", leaf("tags", "str_exists", "vi"), []],
    ["a missing key", nobody, []],
    ["AND", { join_type: "AND", conditions: [vip, grown] }, ["d00", "d03", "d06", "d09"]],
    [
      "OR",
      { join_type: "OR", conditions: [pro, leaf("age", "int_gt", "60")] },
      ["d00", "d01", "d13"],
    ],
    ["a group of one", { join_type: "OR", conditions: [pro] }, ["d00", "d01"]],
    [
      "a group that has leaf fields",
      { join_type: "OR", conditions: [pro], ...nobody },
      ["d00", "d01"],
    ],
    ["a leaf that has a join type", { ...pro, join_type: "XOR" }, ["d00", "d01"]],
    [
      "groups in a group",
      {
        join_type: "OR",
        conditions: [
          { join_type: "AND", conditions: [vip, pro] },
          nobody,
          leaf("age", "int_eq", "65"),
        ],
      },
      ["d00", "d13"],
    ],
    [
      "elements that differ",
      { join_type: "AND", conditions: [leaf("age", "int_lt", "2"), leaf("age", "int_gt", "39")] },
      ["d09"],
    ],
  ])("%s", async (_what, conditions, wanted) => {
    expect(await found(conditions)).toEqual(wanted);
    expect(await api.ok("POST", ESTIMATE, { conditions })).toStrictEqual({ count: wanted.length });
  });

  const wrong: [string, unknown][] = [
    ["null", null],
    ["a list", []],
    ["a text", "age"],
    ["a group of none", { join_type: "AND", conditions: [] }],
    ["a group that is no list", { join_type: "AND", conditions: {} }],
    ["a group without a join type", { conditions: [pro] }],
    ["another join type", { join_type: "and", conditions: [pro] }],
    ["no operator", { key: "age", value: "1" }],
    ["another operator", leaf("age", "int_ne", "1")],
    ["an operator of objects", leaf("age", "constructor", "1")],
    ["no key", { operator: "str_eq", value: "1" }],
    ["no value", { key: "age", operator: "str_eq" }],
    ["a value of null", { key: "age", operator: "str_eq", value: null }],
    ["a value that is true", { key: "age", operator: "int_eq", value: true }],
    ["an operand in words", leaf("age", "int_eq", "ten")],
    ["an empty operand", leaf("age", "int_eq", "")],
    ["a fraction", leaf("age", "int_eq", "1.0")],
    ["a hexadecimal operand", leaf("age", "int_eq", "0x10")],
    ["a child that is null", { join_type: "OR", conditions: [null] }],
    ["a wrong child", { join_type: "OR", conditions: [pro, leaf("age", "int_eq", "x")] }],
    ["NUL in a key", leaf("a\0", "str_eq", "x")],
    ["NUL in a value", leaf("age", "str_eq", "a\0")],
  ];

  test.each(wrong)("%s: refused", async (_what, conditions) => {
    for (const path of [SEARCH, ESTIMATE]) {
      const [status, reason] = await api.refused("POST", path, { conditions });
      expect([path, status]).toEqual([path, 400]);
      expect(reason).toStartWith("wrong condition clause ");
    }
  });

  test("sixteen levels of groups are fine, seventeen are refused", async () => {
    const nested = (levels: number): object =>
      levels === 0 ? pro : { join_type: "AND", conditions: [nested(levels - 1)] };
    expect(await found(nested(16))).toEqual(["d00", "d01"]);
    const [status, reason] = await api.refused("POST", SEARCH, { conditions: nested(17) });
    expect([status, reason]).toEqual([400, expect.stringContaining("wrong condition clause ")]);
  });
});

test("external ids narrow what conditions find, and unknown ones find nothing", async () => {
  const conditions = leaf("tags", "str_exists", "vip");
  const ids = ["d03", "d01", "d00", "d03", "unknown", "", "x".repeat(300)];
  const page = await api.search({ external_ids: ids, conditions });
  expect([page.total, names(page.items)]).toEqual([2, ["d00", "d03"]]);
  expect(await api.search({ external_ids: ["unknown"] })).toEqual({ total: 0, items: [] });
  expect(await api.search({ external_ids: [] })).toMatchObject({ total: 14 });
});

describe("pages", () => {
  test.each<[object, number, number]>([
    [{ start: 0, size: 3 }, 0, 3],
    [{ start: 3, size: 3 }, 3, 6],
    [{ start: "3", size: "3" }, 3, 6],
    [{ start: 12 }, 12, 14],
    [{ size: 1000 }, 0, 14],
    [{ start: 14, size: 5 }, 14, 14],
    [{ start: 1_000_000 }, 14, 14],
  ])("%j", async (paging, from, to) => {
    expect(await api.search(paging)).toEqual({ total: 14, items: devices.slice(from, to) });
  });

  test.each<[string, object]>([
    ["size", { size: 0 }],
    ["size", { size: 1001 }],
    ["size", { size: -1 }],
    ["size", { size: 1.5 }],
    ["size", { size: true }],
    ["size", { size: "ten" }],
    ["size", { size: "" }],
    ["size", { size: "0" }],
    ["size", { size: "1001" }],
    ["size", { size: null }],
    ["size", { size: [1] }],
    ["start", { start: -1 }],
    ["start", { start: "-1" }],
    ["start", { start: 0.5 }],
    ["start", { start: false }],
    ["start", { start: null }],
    ["start", { start: "0x1" }],
    ["start", { start: " 1" }],
    ["external_ids", { external_ids: null }],
    ["external_ids", { external_ids: "d00" }],
    ["external_ids", { external_ids: [1] }],
    ["external_ids", { external_ids: [null] }],
    ["external_ids", { external_ids: [{}] }],
    ["order_bys", { order_bys: null }],
    ["order_bys", { order_bys: "id" }],
    ["order_bys", { order_bys: [1] }],
  ])("%s is named when it is wrong: %j", async (field, body) => {
    const [status, reason] = await api.refused("POST", SEARCH, body);
    expect([status, reason]).toEqual([400, expect.stringContaining(field)]);
  });
});

function byText(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

describe("orders", () => {
  type Sort = (a: Device, b: Device) => number;

  test.each<[string[], Sort]>([
    [[], (a, b) => a.id - b.id],
    [["-id"], (a, b) => b.id - a.id],
    [["external_id"], (a, b) => byText(a.external_id, b.external_id)],
    [["-external_id"], (a, b) => byText(b.external_id, a.external_id)],
    [["random_bucket"], (a, b) => a.random_bucket - b.random_bucket || a.id - b.id],
    [["-random_bucket"], (a, b) => b.random_bucket - a.random_bucket || a.id - b.id],
    [["send_platform"], (a, b) => a.send_platform - b.send_platform || a.id - b.id],
    [["-device_platform"], (a, b) => b.device_platform - a.device_platform || a.id - b.id],
    [
      ["send_platform", "-device_platform", "-id"],
      (a, b) =>
        a.send_platform - b.send_platform || b.device_platform - a.device_platform || b.id - a.id,
    ],
    [
      ["-device_platform", "send_platform"],
      (a, b) =>
        b.device_platform - a.device_platform || a.send_platform - b.send_platform || a.id - b.id,
    ],
    [
      ["unknown", "-push_token", "", "-", "--id", "id; drop table devices", "-id"],
      (a, b) => b.id - a.id,
    ],
    [["constructor", "__proto__", "ID", "d.id"], (a, b) => a.id - b.id],
    [
      ["send_platform", "-send_platform"],
      (a, b) => a.send_platform - b.send_platform || a.id - b.id,
    ],
  ])("%j", async (order, sort) => {
    const { items } = await api.search({ order_bys: order, size: 100 });
    expect(names(items)).toEqual(names(devices.toSorted(sort)));
  });

  test("leave out a name of any length", async () => {
    const page = await api.search({ order_bys: ["x".repeat(300)], size: 100 });
    expect(page.items).toEqual(devices);
  });

  test("hold over pages", async () => {
    const pages = [];
    for (let start = 0; start < 14; start += 4)
      pages.push(...(await api.search({ order_bys: ["-send_platform"], start, size: 4 })).items);
    const sorted = devices.toSorted((a, b) => b.send_platform - a.send_platform || a.id - b.id);
    expect(names(pages)).toEqual(names(sorted));
  });
});

describe("an estimate", () => {
  test("without conditions counts every device", async () => {
    expect(await api.ok("POST", ESTIMATE, {})).toStrictEqual({ count: 14 });
  });

  test("of what is no JSON object is refused", async () => {
    expect(await api.refused("POST", ESTIMATE, "")).toEqual([400, "Not JSON type"]);
    expect((await api.refused("POST", ESTIMATE, []))[0]).toBe(400);
  });
});
