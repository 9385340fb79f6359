import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";

import { type ImportProgress, PROBLEMS_MAX, importDevices } from "../../src/devices/import.ts";
import { applyProperties } from "../../src/devices/properties.ts";
import { AppError } from "../../src/platform/errors.ts";
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

beforeEach(async () => {
  await sql`truncate devices, device_numbers`;
});

async function load(...lines: unknown[]) {
  async function* texts() {
    for (const one of lines)
      yield typeof one === "string" || one instanceof AppError ? one : JSON.stringify(one);
  }
  return await importDevices(sql, texts(), () => undefined);
}

async function version() {
  return await sql`select xmin from devices`;
}

async function* manyLines(count: number) {
  for (let n = 0; n < count; n++) yield n % 1000 === 0 ? "bad" : JSON.stringify(line(`d${n}`));
}

async function* thousandsThenError() {
  for (let n = 0; n < 20_000; n++) yield JSON.stringify(line(n < 10_000 ? `d${n}` : `e${n}`));
  throw new Error("no more");
}

test("a line makes a device with its properties and numbers", async () => {
  const properties = { age: 30, tags: ["a", 2, 2.5, 2], plan: "pro", trial: true, none: [] };
  const result = await load(
    line("a", properties, { send_platform: 1, device_platform: 2 }),
    { external_id: "b", push_token: "t" },
    { external_id: "c", push_token: "", device_properties: [{ age: 1 }, { plan: "x" }] },
  );
  expect(result).toEqual({ lines: 3, devices: 3, bad: 0, problems: [] });
  expect(await device(sql, "a")).toMatchObject({
    push_token: "token of a",
    send_platform: 1,
    device_platform: 2,
    properties,
    token_invalid: false,
  });
  expect(await numbers(sql, "a")).toEqual(["age 30", "tags 2", "tags 2.5", "tags NaN"]);
  expect(await device(sql, "b")).toMatchObject({
    send_platform: 0,
    device_platform: 0,
    properties: {},
  });
  expect(await device(sql, "c")).toMatchObject({ properties: { age: 1, plan: "x" } });
});

test("a device that was there keeps its id and bucket, and its other properties and their numbers", async () => {
  await load(line("a", { age: 30, list: [1, 2], gone: 7, text: "x" }, { send_platform: 1 }));
  const before = await device(sql, "a");
  await load(
    line("a", { age: "thirty", list: [2, 3], gone: null, more: 1 }, { device_platform: 3 }),
  );
  const after = await device(sql, "a");
  expect(after).toMatchObject({
    id: before?.["id"],
    random_bucket: before?.["random_bucket"],
    token_set_at: before?.["token_set_at"],
    send_platform: 0,
    device_platform: 3,
    properties: { age: "thirty", list: [2, 3], text: "x", more: 1 },
  });
  expect(await numbers(sql, "a")).toEqual(["list 2", "list 3", "list NaN", "more 1"]);
});

test("a new token is a valid one, and the same one stays as it is", async () => {
  await load(line("a"), line("b"));
  await sql`update devices set token_invalid = true, token_set_at = '2020-01-01'`;
  await load(line("a", { n: 1 }), line("b", {}, { push_token: "new" }));
  const then = new Date("2020-01-01");
  expect(await device(sql, "a")).toMatchObject({ token_invalid: true, properties: { n: 1 } });
  expect((await device(sql, "a"))?.["token_set_at"]).toEqual(then);
  expect(await device(sql, "b")).toMatchObject({ token_invalid: false, push_token: "new" });
  expect((await device(sql, "b"))?.["token_set_at"]).not.toEqual(then);
});

test("a device that is as the line says is not written", async () => {
  await load(line("a", { n: [1, 2] }));
  const before = await version();
  await load(line("a", { n: [1, 2] }));
  expect(await version()).toEqual(before);
  await load(line("a", { n: [1] }));
  expect(await version()).not.toEqual(before);
  expect(await numbers(sql, "a")).toEqual(["n 1"]);
});

test("of lines for the same device the last one wins, as if they were imported one after the other", async () => {
  const result = await load(
    line("a", { kept: 1, changed: 2, gone: 3 }),
    line("b"),
    line("a", { changed: "x", gone: null }, { push_token: "last" }),
  );
  expect(result).toMatchObject({ lines: 3, devices: 3, bad: 0 });
  expect(await device(sql, "a")).toMatchObject({
    push_token: "last",
    properties: { kept: 1, changed: "x" },
  });
  expect(await numbers(sql, "a")).toEqual(["kept 1"]);
});

test("also when they are far apart", async () => {
  const others = Array.from({ length: 12_000 }, (_, index) => line(`other ${index}`, { index }));
  await load(line("a", { kept: 1, changed: 2 }), ...others, line("a", { changed: 3 }));
  expect(await device(sql, "a")).toMatchObject({ properties: { kept: 1, changed: 3 } });
  expect(await numbers(sql, "a")).toEqual(["changed 3", "kept 1"]);
  const [count] = await sql`
    select (select count(*)::integer from devices) as devices, (select count(*)::integer from device_numbers) as numbers`;
  expect(count).toEqual({ devices: 12_001, numbers: 12_002 });
});

test("bad lines are skipped and told, with their number", async () => {
  const bad: [unknown, string][] = [
    ["{", "not JSON"],
    ["[]", "it must be an object"],
    [{ push_token: "t" }, "external_id must be text of 1 to 255 characters"],
    [line(""), "external_id must be text of 1 to 255 characters"],
    [line("x".repeat(256)), "external_id must be text of 1 to 255 characters"],
    [line("a\0"), "external_id must be text of 1 to 255 characters"],
    [line(".."), "external_id must not be . or .."],
    [{ external_id: "a" }, "push_token must be text of 0 to 4096 characters"],
    [line("a", {}, { push_token: null }), "push_token must be text of 0 to 4096 characters"],
    [line("a", {}, { push_token: "\ud800" }), "push_token must be text of 0 to 4096 characters"],
    [line("a", {}, { send_platform: 3 }), "send_platform must be a whole number from 0 to 2"],
    [line("a", {}, { send_platform: "1" }), "send_platform must be a whole number from 0 to 2"],
    [
      line("a", {}, { device_platform: null }),
      "device_platform must be a whole number from 0 to 3",
    ],
    [
      line("a", {}, { device_platform: true }),
      "device_platform must be a whole number from 0 to 3",
    ],
    [line("a", []), "properties must be an object"],
    [line("a", { o: {} }), 'the value of "o" must be a string, a number'],
    [line("a", { l: [[1]] }), 'element 0 of the value of "l" must be a string, a number'],
    [line("a", { "": 1 }), 'the key "" of properties must not be empty'],
    [line("a", { "a\0": 1 }), "must not contain NUL"],
    [
      '{"external_id":"a","push_token":"t","properties":{"n":1e999}}',
      'the value of "n" must be from -9007199254740991 to 9007199254740991',
    ],
    [
      '{"external_id":"a","push_token":"t","properties":{"n":[1,-9007199254740993]}}',
      'element 1 of the value of "n" must be from -9007199254740991 to 9007199254740991',
    ],
    [line("a", { s: "x".repeat(70_000) }), "at most 65536 bytes"],
    [
      line("a", Object.fromEntries(Array.from({ length: 1001 }, (_, n) => [n, n]))),
      "properties must be at most 1000",
    ],
    [line("a", {}, { device_properties: [] }), "properties and device_properties are both given"],
    [
      { external_id: "a", push_token: "t", device_properties: {} },
      "device_properties must be a list",
    ],
    [
      { external_id: "a", push_token: "t", device_properties: [{ a: 1, b: 2 }] },
      "device_properties[0] must be an object with one key",
    ],
    [new AppError("invalid", "not to be read"), "not to be read"],
  ];
  const result = await load(line("good"), "", ...bad.map(([one]) => one), "  ", line("good too"));
  expect(result).toMatchObject({ lines: bad.length + 4, devices: 2, bad: bad.length });
  expect(result.problems).toEqual(
    bad.map(([, reason], index) => ({ line: index + 3, reason: expect.stringContaining(reason) })),
  );
  expect(await sql`select external_id from devices order by 1`).toMatchObject([
    { external_id: "good" },
    { external_id: "good too" },
  ]);
});

test("of very many bad lines the first are told", async () => {
  const { bad, problems } = await load(...Array.from({ length: PROBLEMS_MAX + 50 }, () => "{"));
  expect(bad).toBe(PROBLEMS_MAX + 50);
  expect(problems.at(-1)).toMatchObject({ line: PROBLEMS_MAX });
});

test("no character of an id, a token or a property is lost", async () => {
  const odd = "tab\t line\n return\r back\\slash \\N \\. quote\" it's 😀 \u0001\u2028";
  const properties = Object.fromEntries([
    [odd, odd],
    ["__proto__", [odd, 1]],
    ["\\n", "\\u0000"],
  ]);
  await load(line(odd, properties, { push_token: odd }), line("\\."), line("\\N"));
  expect(await device(sql, odd)).toMatchObject({ external_id: odd, push_token: odd });
  expect((await device(sql, odd))?.["properties"]).toEqual(properties);
  expect(await device(sql, "\\.")).toBeDefined();
  expect(await device(sql, "\\N")).toBeDefined();
});

test("numbers stay right when devices change during an import", async () => {
  const lines = Array.from({ length: 200 }, (_, index) => line(`d${index}`, { n: index }));
  await load(...lines);
  const rows = await sql<{ id: bigint }[]>`select id from devices order by id`;
  await Promise.all([
    load(...lines.map((one) => ({ ...one, properties: { n: [1, 2] } }))),
    ...rows.map(async ({ id }) => await applyProperties(sql, id, [{ key: "n", value: "text" }])),
    load(...lines.map((one) => ({ ...one, properties: { n: 5 } }))),
  ]);
  const wrong = await sql`
    select external_id, properties, numbers from devices, lateral (
      select coalesce(array_agg(value::text order by value), '{}') as numbers from device_numbers where device_id = id) as of_device
    where numbers <> case properties -> 'n' when '5' then '{5}'::text[] when '[1, 2]' then '{1,2,NaN}' else '{}' end`;
  expect([...wrong]).toEqual([]);
});

test("progress is told as chunks are stored, and ends with everything", async () => {
  const told: ImportProgress[] = [];
  await importDevices(sql, manyLines(25_000), (progress) => told.push(progress));
  expect(told.length).toBeGreaterThan(2);
  expect(told).toEqual(told.toSorted((a, b) => a.lines - b.lines));
  expect(told.at(-1)).toEqual({ lines: 25_000, devices: 24_975, bad: 25 });
});

test("what was imported before an error stays", async () => {
  const failed = importDevices(sql, thousandsThenError(), () => undefined);
  expect(await failed.catch(String)).toBe("Error: no more");
  const [count] = await sql<
    [{ n: number }]
  >`select count(*)::integer as n from devices where external_id like 'd%'`;
  expect(count.n).toBe(10_000);
});

test("nothing is no error", async () => {
  expect(await load()).toEqual({ lines: 0, devices: 0, bad: 0, problems: [] });
});
