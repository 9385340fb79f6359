import * as fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";

import {
  type PropertyChange,
  type PropertyValue,
  applyProperties,
  parseProperties,
  wireProperties,
} from "../../src/devices/properties.ts";
import { type Sql, openDatabase } from "../../src/platform/database/database.ts";
import { freshDatabase } from "../support/postgres.ts";

let sql: Sql;

beforeAll(async () => {
  sql = openDatabase(await freshDatabase(), { connections: 5 });
});

afterAll(async () => {
  await sql.end();
});

async function aDevice(): Promise<bigint> {
  const [row] = await sql<[{ id: bigint }]>`
    insert into devices (external_id, push_token) values (${crypto.randomUUID()}, 't') returning id`;
  return row.id;
}

async function stored(deviceId: bigint) {
  const [row] = await sql<[{ properties: Record<string, PropertyValue> }]>`
    select properties from devices where id = ${deviceId}`;
  const numbers = await sql<{ key: string; value: string }[]>`
    select key, value from device_numbers where device_id = ${deviceId}`;
  return {
    properties: row.properties,
    numbers: numbers.map(({ key, value }) => `${key} ${Number(value)}`).toSorted(),
  };
}

/** What the side table must have: each number once, and NaN for a list in which there may be several. */
function numbersOf(properties: Record<string, PropertyValue>): string[] {
  const rows = Object.entries(properties).flatMap(([key, value]) => {
    const elements = Array.isArray(value) ? value : [value];
    const numbers = elements.filter((one) => typeof one === "number").map((one) => one + 0);
    const several = elements.length > 1 && numbers.length > 0;
    return [...new Set(several ? [...numbers, Number.NaN] : numbers)].map((one) => `${key} ${one}`);
  });
  return rows.toSorted();
}

const scalar = fc.oneof(
  fc.string({ unit: "grapheme", maxLength: 5 }).filter((text) => !text.includes("\0")),
  fc.integer({ min: -3, max: 3 }),
  fc.double({ noNaN: true, min: -(2 ** 53 - 1), max: 2 ** 53 - 1 }),
  fc.boolean(),
);
const change = fc.record({
  key: fc.constantFrom("a", "b", "c", "a.b", "$", "__proto__", '"', "\\", "😀", "1", "toString"),
  value: fc.oneof(scalar, fc.array(scalar, { maxLength: 4 }), fc.constant(null)),
});

describe("changes", () => {
  test("any sequence of them leaves what the last of each key says, and its numbers", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(change, { maxLength: 8 }), { maxLength: 6 }),
        async (lists) => {
          const id = await aDevice();
          const expected = new Map<string, PropertyValue>();
          for (const list of lists) {
            const changes = parseProperties(JSON.parse(JSON.stringify(list)));
            for (const { key, value } of changes)
              if (value === null) expected.delete(key);
              else expected.set(key, value);
            const after = await applyProperties(sql, id, changes);
            expect(after).toEqual(Object.fromEntries(expected));
          }
          const { properties, numbers } = await stored(id);
          expect(properties).toEqual(Object.fromEntries(expected));
          expect(numbers).toEqual(numbersOf(properties));
        },
      ),
      { numRuns: 60 },
    );
  });

  test("at the same time leave properties and numbers that fit", async () => {
    const id = await aDevice();
    await Promise.all(
      Array.from({ length: 30 }, async (_, n) => await applyProperties(sql, id, changesOf(n))),
    );
    const { properties, numbers } = await stored(id);
    expect(Object.keys(properties)).toHaveLength(31);
    expect(numbers).toEqual(numbersOf(properties));
  });

  test("belong to the caller's transaction", async () => {
    const id = await aDevice();
    const undone = sql.begin(async (tx) => {
      await applyProperties(tx, id, [{ key: "n", value: 1 }]);
      throw new Error("undone");
    });
    expect(await undone.catch(String)).toBe("Error: undone");
    expect(await stored(id)).toEqual({ properties: {}, numbers: [] });
  });

  test("of an unknown device tell so", async () => {
    expect(await applyProperties(sql, 0n, [{ key: "a", value: 1 }])).toBeUndefined();
    expect(await applyProperties(sql, 0, [])).toBeUndefined();
  });

  test("none, or the removal of what is not there, change nothing", async () => {
    const id = await aDevice();
    await applyProperties(sql, Number(id), [{ key: "a", value: [1, 1] }]);
    expect(await applyProperties(sql, id, [])).toEqual({ a: [1, 1] });
    expect(await applyProperties(sql, id, [{ key: "b", value: null }])).toEqual({ a: [1, 1] });
  });

  test("that would make a device's properties too large change nothing", async () => {
    const id = await aDevice();
    const half = "x".repeat(40_000);
    await applyProperties(sql, id, [{ key: "a", value: half }]);
    const refused = applyProperties(sql, id, [
      { key: "n", value: 5 },
      { key: "b", value: half },
    ]);
    expect(await refused.catch(String)).toContain("at most 65536 bytes");
    expect(await stored(id)).toEqual({ properties: { a: half }, numbers: [] });
    expect(
      await applyProperties(sql, id, [
        { key: "a", value: null },
        { key: "b", value: half },
      ]),
    ).toEqual({ b: half });
  });
});

function changesOf(n: number): PropertyChange[] {
  return [
    { key: "n", value: n % 3 === 0 ? "text" : [n, n + 1] },
    { key: `own${n}`, value: n },
  ];
}

describe("the wire's form", () => {
  test("is one object for each property, in the order of code points", () => {
    const properties = Object.fromEntries([
      ["😀", 1],
      ["\uffff", 2],
      ["b", []],
      ["10", "x"],
      ["9", true],
      ["__proto__", 3],
    ]);
    expect(wireProperties(properties)).toEqual([
      { "10": "x" },
      { "9": true },
      Object.fromEntries([["__proto__", 3]]),
      { b: [] },
      { "\uffff": 2 },
      { "😀": 1 },
    ]);
    expect(wireProperties({})).toEqual([]);
  });
});

describe("a list of properties", () => {
  test("is taken over in its order", () => {
    const list = [
      { key: "a", value: 1.5 },
      { key: "a", value: null },
      { key: "b", value: ["x", 1, true], more: 1 },
      { key: "c", value: "" },
      { key: "d", value: [] },
    ];
    expect(parseProperties(list)).toEqual(
      list.map(({ key, value }) => ({ key, value })) as PropertyChange[],
    );
  });

  test.each<[unknown, string]>([
    [undefined, "properties must be a list"],
    [null, "properties must be a list"],
    [{ a: 1 }, "properties must be a list"],
    [
      Array.from({ length: 1001 }, () => ({ key: "a", value: 1 })),
      "properties must be at most 1000",
    ],
    [[{ key: "a", value: 1 }, 5], "properties[1] must be an object"],
    [[null], "properties[0] must be an object"],
    [[{ value: 1 }], "properties[0].key is missing"],
    [[{ key: "a" }], "properties[0].value is missing"],
    [[{ key: 1, value: 1 }], "properties[0].key must be a string"],
    [[{ key: null, value: 1 }], "properties[0].key must be a string"],
    [[{ key: "", value: 1 }], "properties[0].key must not be empty"],
    [[{ key: "x".repeat(256), value: 1 }], "properties[0].key must have at most 255 characters"],
    [[{ key: "a\0b", value: 1 }], "properties[0].key must not contain NUL"],
    [[{ key: "\ud83d", value: 1 }], "properties[0].key must be well-formed Unicode"],
    [[{ key: "a", value: {} }], 'the value of "a" must be a string, a number'],
    [[{ key: "a", value: [[]] }], 'element 0 of the value of "a" must be a string'],
    [[{ key: "a", value: [1, null] }], 'element 1 of the value of "a" must be a string'],
    [[{ key: "a", value: [1, {}] }], 'element 1 of the value of "a" must be a string'],
    [[{ key: "a", value: "a\0" }], 'the value of "a" must not contain NUL'],
    [
      [{ key: "a", value: ["\udc00"] }],
      'element 0 of the value of "a" must be well-formed Unicode',
    ],
    ...["1e400", "9007199254740992", "-9007199254740993", "9007199254740993.0", "1e16"].map(
      (number): [unknown, string] => [
        [{ key: "a", value: JSON.parse(number) }],
        'the value of "a" must be from -9007199254740991 to 9007199254740991',
      ],
    ),
    [
      [{ key: "a", value: Array.from({ length: 1001 }, () => 1) }],
      'the value of "a" must have at most 1000 elements',
    ],
    [
      [{ key: "a", value: "x".repeat(65_536) }],
      "properties of a device must be at most 65536 bytes",
    ],
  ])("%#: is refused", (list, message) => {
    expect(() => parseProperties(list)).toThrow(message);
  });
});
