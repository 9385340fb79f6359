import * as fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";

import { whereSql } from "../../src/devices/condition-sql.ts";
import { type Condition, type NumberLeaf, parseConditions } from "../../src/devices/conditions.ts";
import { importDevices } from "../../src/devices/import.ts";
import { type PropertyValue } from "../../src/devices/properties.ts";
import { type Sql, openDatabase } from "../../src/platform/database/database.ts";
import {
  NUMBER_OPERATORS,
  TEXT_OPERATORS,
  anyConditions,
  anyProperties,
} from "../support/conditions.ts";
import { freshDatabase } from "../support/postgres.ts";

const MODES = ["indexed", "filter"] as const;

let sql: Sql;
/** Never walks a table that an index could serve, however small it is. */
let indexSql: Sql;

beforeAll(async () => {
  const url = await freshDatabase();
  sql = openDatabase(url, { connections: 2 });
  indexSql = openDatabase(`${url}&enable_seqscan=off`, { connections: 2 });
});

afterAll(async () => {
  await Promise.all([sql.end(), indexSql.end()]);
});

async function store(devices: Record<string, unknown>[]): Promise<void> {
  await sql`truncate devices, device_numbers restart identity`;
  async function* lines() {
    for (const [index, properties] of devices.entries())
      yield JSON.stringify({ external_id: `d${index}`, push_token: "t", properties });
  }
  const { problems } = await importDevices(sql, lines(), () => undefined);
  expect(problems).toEqual([]);
}

/** The places in `devices` that match, in each mode and planned in each way. */
async function matching(tree: Condition): Promise<number[][]> {
  return await Promise.all(
    [sql, indexSql].flatMap((database) =>
      MODES.map(async (mode) => {
        const rows = await database<{ index: number }[]>`
          select substr(external_id, 2)::integer as index from devices d
          where ${whereSql(database, tree, mode)} and external_id <> '' order by 1`;
        return rows.map(({ index }) => index);
      }),
    ),
  );
}

async function expectMatches(devices: Record<string, PropertyValue>[], tree: Condition) {
  const expected = devices.flatMap((device, index) => (holds(tree, device) ? [index] : []));
  for (const found of await matching(tree)) expect(found).toEqual(expected);
}

/** What the language means, without a database. */
function holds(tree: Condition, device: Record<string, PropertyValue>): boolean {
  if (tree.type === "all") return true;
  if (tree.type === "group")
    return tree.join === "AND"
      ? tree.conditions.every((child) => holds(child, device))
      : tree.conditions.some((child) => holds(child, device));
  if (!Object.hasOwn(device, tree.key)) return false;
  const value = device[tree.key];
  const elements = Array.isArray(value) ? value : [value];
  if (tree.type === "number")
    return elements.some((one) => typeof one === "number" && compares(tree, one));
  return (tree.operator === "str_eq" || Array.isArray(value)) && elements.includes(tree.value);
}

function compares({ operator, number }: NumberLeaf, value: number): boolean {
  const sign = compareDecimal(value, number);
  if (operator === "int_eq") return sign === 0;
  if (operator === "int_gt") return sign > 0;
  if (operator === "int_gte") return sign >= 0;
  return operator === "int_lt" ? sign < 0 : sign <= 0;
}

/** Of the number as JSON writes it, which above 2^53 is not quite the one that a double holds. */
function compareDecimal(value: number, integer: bigint): number {
  const [, sign, whole = "", fraction = "", exponent = "0"] =
    /^(-?)(\d+)(?:\.(\d+))?(?:e([+-]\d+))?$/.exec(JSON.stringify(value)) ?? [];
  const digits = BigInt(`${sign}${whole}${fraction}`);
  const scale = Number(exponent) - fraction.length;
  const a = scale > 0 ? digits * 10n ** BigInt(scale) : digits;
  const b = scale < 0 ? integer * 10n ** BigInt(-scale) : integer;
  return a < b ? -1 : Number(a > b);
}

describe("devices are found as the tree says, in both modes, by the indexes or without", () => {
  test("for any trees and any devices", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(anyProperties, { minLength: 1, maxLength: 40 }),
        fc.array(anyConditions, { minLength: 10, maxLength: 25 }),
        async (devices, trees) => {
          await store(devices);
          for (const tree of trees) await expectMatches(devices, parseConditions(tree));
        },
      ),
      { numRuns: 40 },
    );
  }, 120_000);

  test("for each operator and each kind of value", async () => {
    const values: PropertyValue[] = [
      5,
      5.5,
      4,
      6,
      "5",
      "vip",
      "a vip",
      true,
      false,
      [],
      [5],
      [4, 6],
      ["5"],
      ["vip"],
      ["x", "vip"],
      ["x", 5],
      [true],
      "",
      [""],
      [5.5],
    ];
    const devices = [...values.map((one) => ({ k: one })), {}, { other: 5 }, { other: ["vip"] }];
    await store(devices);
    for (const operator of NUMBER_OPERATORS)
      for (const operand of ["5", "4", "6", "0", "-5"])
        await expectMatches(devices, parseConditions({ key: "k", operator, value: operand }));
    for (const operator of TEXT_OPERATORS)
      for (const operand of ["5", "vip", "", "v", "true", "None"])
        await expectMatches(devices, parseConditions({ key: "k", operator, value: operand }));
  });

  test.each<[operator: string, operand: string, PropertyValue[], PropertyValue[]]>([
    ["int_eq", "5", [5, [5], ["x", 5]], [5.5, "5", ["5"], true, []]],
    ["int_gt", "5", [6, 5.5, [1, 6]], [5, "6", ["6"], [5], true]],
    ["int_gte", "5", [5, 6, [5]], [4.5, "5", true]],
    ["int_lt", "5", [4, 4.5, -6, [4, 9]], [5, "4", false]],
    ["int_lte", "5", [5, 4, [5, 9]], [5.5, "5", false]],
    ["str_eq", "vip", ["vip", ["x", "vip"]], ["VIP", "a vip", 5, true]],
    ["str_eq", "1", ["1", ["1"]], [1, [1], true]],
    ["str_exists", "vip", [["vip"], [1, "vip"]], ["vip", "a vip", ["VIP"], []]],
    ["str_exists", "1", [["1"]], ["1", 1, [1]]],
  ])("%s %s", async (operator, operand, matched, unmatched) => {
    await store([...matched, ...unmatched].map((one) => ({ k: one })));
    const tree = parseConditions({ key: "k", operator, value: operand });
    for (const found of await matching(tree)) expect(found).toEqual([...matched.keys()]);
  });

  test("of several numbers one may be above and another one below", async () => {
    const devices = [{ n: [1, 9] }, { n: [1, 2] }, { n: 5 }, { n: [5] }, { n: ["5", 1] }, { n: 9 }];
    await store(devices);
    const between = [
      { key: "n", operator: "int_gt", value: "4" },
      { key: "n", operator: "int_lt", value: "6" },
    ];
    const tree = parseConditions({ join_type: "AND", conditions: between });
    for (const found of await matching(tree)) expect(found).toEqual([0, 2, 3]);
  });

  test.each([
    ["AND", "tightest"],
    ["OR", "loosest"],
  ])(
    "joined by %s, of several bounds on one side the %s counts, whatever their order",
    async (join) => {
      const devices = [{ n: 4 }, { n: 5 }, { n: 6 }, { n: 7 }, { n: [3, 8] }];
      await store(devices);
      const lower = ["int_gt 5", "int_gte 5", "int_gte 4"];
      const upper = ["int_lt 7", "int_lte 7", "int_lte 9"];
      for (const pairs of [lower, upper, [...lower, ...upper]])
        for (const ordered of [
          pairs,
          pairs.toReversed(),
          [...pairs.slice(1), ...pairs.slice(0, 1)],
        ])
          await expectMatches(
            devices,
            parseConditions({ join_type: join, conditions: boundsOf(ordered) }),
          );
    },
  );

  test("operands are exact to the last digit, also where properties are not", async () => {
    await store([{ n: 2 ** 53 - 1 }, { n: 2 ** 53 - 2 }, { n: 1 - 2 ** 53 }]);
    // From a time when larger ones were taken.
    await sql`update devices set properties = '{"n": 9007199254740994}' where external_id = 'd1'`;
    await sql`update device_numbers set value = 9007199254740994 where value = ${2 ** 53 - 2}`;
    for (const [operator, value, found] of [
      ["int_eq", "9007199254740993", []],
      ["int_gt", "9007199254740993", [1]],
      ["int_lt", "9007199254740993", [0, 2]],
      ["int_lte", "9007199254740992", [0, 2]],
      ["int_gt", "9223372036854775807", []],
      ["int_lt", "9223372036854775807", [0, 1, 2]],
      ["int_lt", "-9007199254740992", []],
      ["int_gte", "-9223372036854775808", [0, 1, 2]],
    ] as const) {
      const tree = parseConditions({ key: "n", operator, value });
      for (const indexes of await matching(tree)) expect(indexes).toEqual([...found]);
    }
  });

  test("for the largest tree", async () => {
    const leaves = Array.from({ length: 200 }, (_, index) => ({
      key: `k${index}`,
      operator: index % 2 === 0 ? "int_gte" : "str_eq",
      value: String(index),
    }));
    await store([{ k7: "7" }, { k8: 8 }, { k8: 7, k7: 7 }]);
    for (const found of await matching(parseConditions({ join_type: "OR", conditions: leaves })))
      expect(found).toEqual([0, 1]);
    for (const found of await matching(parseConditions({ join_type: "AND", conditions: leaves })))
      expect(found).toEqual([]);
  });

  test("with an operand as long as it may be", async () => {
    const longest = "😀\\".repeat(512);
    await store([{ k: longest }, { k: `${longest}.` }]);
    const tree = parseConditions({ key: "k", operator: "str_eq", value: longest });
    for (const found of await matching(tree)) expect(found).toEqual([0]);
  });
});

function boundsOf(pairs: string[]) {
  return pairs.map((pair) => {
    const [operator, value] = pair.split(" ");
    return { key: "n", operator, value };
  });
}
