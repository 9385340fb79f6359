import { afterAll, beforeAll, describe, expect, test } from "bun:test";

import { importDevices } from "../../src/devices/import.ts";
import { applyProperties } from "../../src/devices/properties.ts";
import { type Sql, openDatabase } from "../../src/platform/database/database.ts";
import { device, line, numbers } from "../support/devices.ts";
import { freshDatabase } from "../support/postgres.ts";

let sql: Sql;

beforeAll(async () => {
  sql = openDatabase(await freshDatabase(), { connections: 4 });
});

afterAll(async () => {
  await sql.end();
});

async function load(...lines: object[]) {
  async function* texts() {
    for (const one of lines) yield JSON.stringify(one);
  }
  return await importDevices(sql, texts(), () => undefined);
}

async function ids(): Promise<number[]> {
  const rows = await sql<{ id: number }[]>`select id::integer as id from devices order by id`;
  return rows.map(({ id }) => id);
}

describe("a device whose properties would become too large", () => {
  const half = "x".repeat(40_000);
  const reason = "properties of a device must be at most 65536 bytes of JSON";

  test("is not changed by the line, whether it has them from before or from other lines", async () => {
    await load(line("before", { a: half }), line("text", { n: 1 }));
    const result = await load(
      line("before", { b: half }, { push_token: "other" }),
      line("text", { n: 2 }),
      line("lines", { a: half }),
      line("lines", { b: half, n: 1 }, { push_token: "other" }),
      line("lines", { c: 5 }),
      line("numbers", { n: Array.from({ length: 1000 }, () => 1e-99) }),
    );
    expect(result).toEqual({
      lines: 6,
      devices: 3,
      bad: 3,
      problems: [1, 4, 6].map((number) => ({ line: number, reason })),
    });
    expect(await device(sql, "before")).toMatchObject({
      push_token: "token of before",
      properties: { a: half },
    });
    expect(await device(sql, "lines")).toMatchObject({
      push_token: "token of lines",
      properties: { a: half, c: 5 },
    });
    expect(await device(sql, "text")).toMatchObject({ properties: { n: 2 } });
    expect(await device(sql, "numbers")).toBeUndefined();
    expect(await numbers(sql, "text")).toEqual(["n 2"]);
    expect(await numbers(sql, "lines")).toEqual(["c 5"]);
  });

  test("is not, also when it grows meanwhile", async () => {
    const names = Array.from({ length: 40 }, (_, nth) => `racer ${nth}`);
    await load(...names.map((name) => line(name)));
    const growing = names.map(async (name) => {
      const [row] = await sql<[{ id: bigint }]>`select id from devices where external_id = ${name}`;
      return await applyProperties(sql, row.id, [{ key: "a", value: half }]).catch(() => undefined);
    });
    const { devices, bad } = await load(...names.map((name) => line(name, { b: half })));
    const grown = (await Promise.all(growing)).filter((one) => one !== undefined).length;
    expect([devices + bad, devices + grown]).toEqual([40, 40]);
    const [largest] = await sql`select max(octet_length(properties::text)) as bytes from devices`;
    expect(largest?.["bytes"]).toBeLessThanOrEqual(65_536);
  });

  test("is changed when as much is removed", async () => {
    await load(line("a", { a: half }));
    expect(await load(line("a", { a: null, b: half }))).toMatchObject({ devices: 1, bad: 0 });
    expect(await device(sql, "a")).toMatchObject({ properties: { b: half } });
  });
});

test("devices that are known take no ids, and new ones take them without gaps", async () => {
  await sql`truncate devices, device_numbers`;
  await load(line("a"), line("b"));
  for (let nth = 0; nth < 3; nth++) await load(line("a", { nth }), line("b", {}));
  await load(line("b", { n: 1 }), line("c"), line("a", { n: 1 }), line("d"));
  const [first = 0, ...others] = await ids();
  expect(others).toEqual([first + 1, first + 2, first + 3]);
});
