import * as fc from "fast-check";
import { beforeEach, expect, test } from "bun:test";

import { stringifyExact } from "../../src/wire/exact-json.ts";
import { TestApp } from "../support/app.ts";
import { serverBeside } from "../support/requests.ts";
import { USER, UserApi, aBuild, uploads } from "../support/users.ts";

const app = TestApp.forTests();
const api = UserApi.forTests(app);

beforeEach(async () => {
  await app.sql`truncate users, builds`;
});

test("the answer is what was posted, every field in its place, with the row's id", async () => {
  const answer = await api.post(
    '{"tgversion":"8","SessionID":-9223372036854775808,"SessionActivity":9223372036854775807,"ID":77,"Other":1}',
  );
  expect(answer.status).toBe(200);
  expect(answer.headers.get("content-type")).toBe("application/json; charset=utf-8");
  const [row] = await app.sql<[{ id: bigint }]>`select id from users`;
  expect(row.id).not.toBe(77n);
  expect(await answer.text()).toBe(
    `{"ID":${row.id},"AppLocale":"","AppVersion":"","DeviceLocale":"","DeviceMac":"","DeviceModel":"","DeviceSDK":"",` +
      `"SessionActivity":9223372036854775807,"SessionID":-9223372036854775808,"SessionRegister":0,"TgVersion":"8","TargetABI":""}`,
  );
});

test("any texts and numbers are stored as they were sent", async () => {
  const int64 = fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n);
  const text = fc
    .string({ unit: "grapheme", maxLength: 60 })
    .filter((one) => !one.includes("\0") && Buffer.byteLength(one) <= 255);
  const given = { DeviceModel: text, DeviceMac: text, SessionActivity: int64, SessionID: int64 };
  await fc.assert(
    fc.asyncProperty(fc.record(given), async (user) => {
      await app.sql`truncate users`;
      const id = await api.reported(user);
      expect(await (await api.list()).text()).toBe(stringifyExact([{ ...USER, ...user, ID: id }]));
    }),
    { numRuns: 40 },
  );
});

test("the longest texts that are taken can be stored", async () => {
  const longest = `${"😀".repeat(63)}abc`;
  await api.reported({ DeviceMac: longest, AppLocale: `${"é".repeat(127)}x` });
  const random = Array.from({ length: 63 }, (_, i) => String.fromCodePoint(0x20000 + i * 7));
  await api.reported({ DeviceMac: random.join("") });
  expect(await app.sql`select from users`).toHaveLength(2);
});

test("a second report changes its own row, all but the model, and echoes what was sent", async () => {
  const id = await api.reported();
  const other = await api.reported({ SessionID: 2n });
  expect(other).not.toBe(id);
  const changed = {
    ...USER,
    AppLocale: "de",
    AppVersion: "2265_01",
    DeviceLocale: "de-de",
    DeviceModel: "Pixel 5",
    DeviceSDK: "SDK 31",
    SessionActivity: 2n ** 62n,
    SessionRegister: -1n,
    TgVersion: "9",
    TargetABI: "arm",
  };
  const answer = await api.post(stringifyExact(changed));
  expect(await answer.text()).toBe(stringifyExact({ ...changed, ID: id }));
  expect(await (await api.list()).text()).toBe(
    stringifyExact([
      { ...changed, ID: id, DeviceModel: "Pixel 4" },
      { ...USER, SessionID: 2n, ID: other },
    ]),
  );
});

test("a report counts its build when the session is new or its version another one", async () => {
  await aBuild(app, "1_00");
  await aBuild(app, "2_00");
  const counts: Record<string, number>[] = [];
  for (const [AppVersion, TargetABI] of [
    ["1_00", "arm64"],
    ["1_00", "arm64"],
    ["2_00", "arm64"],
    ["1_00", "arm64"],
    ["1_00", "arm"],
    ["1_00", "arm64"],
    ["3_00", "arm64"],
  ] as const) {
    await api.reported({ AppVersion, TargetABI });
    counts.push(await uploads(app));
  }
  expect(counts.map((one) => `${one["1_00arm64"]} ${one["2_00arm64"]}`)).toEqual([
    "1 0",
    "1 0",
    "1 1",
    "2 1",
    "2 1",
    "2 1",
    "2 1",
  ]);
});

test("any sequence of reports counts as the rule says", async () => {
  const VERSIONS = ["1_00", "2_00", "3_00"];
  const ABIS = ["arm", "arm64", ""];
  const report = fc.record({
    SessionID: fc.bigInt(1n, 2n),
    DeviceMac: fc.constantFrom("a", "b"),
    AppVersion: fc.constantFrom(...VERSIONS),
    TargetABI: fc.constantFrom(...ABIS),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(report, { maxLength: 30 }), async (reports) => {
      await app.sql`truncate users, builds`;
      // The third version was never published.
      for (const version of VERSIONS.slice(0, 2))
        for (const abi of ABIS) await aBuild(app, version, abi);
      const expected = await uploads(app);
      const versions = new Map<string, string>();
      for (const user of reports) {
        await api.reported(user);
        const pair = `${user.SessionID} ${user.DeviceMac}`;
        const build = user.AppVersion + user.TargetABI;
        if (versions.get(pair) !== user.AppVersion && build in expected)
          expected[build] = (expected[build] ?? 0) + 1;
        versions.set(pair, user.AppVersion);
      }
      expect(await uploads(app)).toEqual(expected);
      expect(await app.sql`select from users`).toHaveLength(versions.size);
    }),
    { numRuns: 15 },
  );
});

test("first reports of one session at once are one row and count once", async () => {
  await aBuild(app, "2264_00");
  await using beside = await serverBeside(app);
  const urls = [api.url, beside.url];
  for (let round = 1; round <= 10; round++) {
    const ids = await Promise.all(
      Array.from({ length: 20 }, async (_, i) => {
        const answer = await fetch(`${urls[i % 2]}/api/v1/users`, {
          method: "POST",
          headers: { signature: api.client },
          body: stringifyExact({ ...USER, SessionID: BigInt(round) }),
        });
        return /"ID":(\d+)/.exec(await answer.text())?.[1];
      }),
    );
    expect(new Set(ids).size).toBe(1);
    expect(await uploads(app)).toEqual({ "2264_00arm64": round });
  }
  expect(await app.sql`select from users`).toHaveLength(10);
});

test("reports of one session that change its version at once count each change, and none waits for ever", async () => {
  for (const version of ["1_00", "2_00"]) await aBuild(app, version);
  await api.reported({ AppVersion: "1_00" });
  // All at once move from the first version to the second: one of them is the change.
  await Promise.all(
    Array.from({ length: 30 }, async () => await api.reported({ AppVersion: "2_00" })),
  );
  expect(await uploads(app)).toEqual({ "1_00arm64": 1, "2_00arm64": 1 });
});

test("however reports of two versions of one session interleave, their counts alternate", async () => {
  for (const version of ["1_00", "2_00"]) await aBuild(app, version);
  await using beside = await serverBeside(app);
  const urls = [api.url, beside.url];
  for (let round = 0; round < 10; round++) {
    await Promise.all(
      Array.from({ length: 40 }, async (_, i) => {
        const AppVersion = Math.random() < 0.5 ? "1_00" : "2_00";
        await fetch(`${urls[i % 2]}/api/v1/users`, {
          method: "POST",
          headers: { signature: api.client },
          body: stringifyExact({ ...USER, AppVersion }),
        });
      }),
    );
    const { "1_00arm64": one = 0, "2_00arm64": two = 0 } = await uploads(app);
    expect(one + two).toBeGreaterThan(1);
    expect(Math.abs(one - two)).toBeLessThanOrEqual(1);
  }
});

test("reports of many sessions over the same builds do not lock each other out", async () => {
  for (const version of ["1_00", "2_00"]) await aBuild(app, version);
  const reports = Array.from({ length: 400 }, (_, i) => ({
    SessionID: BigInt(i % 40),
    AppVersion: i % 3 === 0 ? "1_00" : "2_00",
  }));
  const ids = await Promise.all(reports.map(async (user) => await api.reported(user)));
  expect(new Set(ids).size).toBe(40);
  const counts = await uploads(app);
  const counted = (counts["1_00arm64"] ?? 0) + (counts["2_00arm64"] ?? 0);
  expect(counted).toBeGreaterThanOrEqual(40);
  expect(counted).toBeLessThanOrEqual(400);
});
