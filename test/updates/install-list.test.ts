import { beforeEach, describe, expect, test } from "bun:test";
import { Type } from "typebox";
import { Value } from "typebox/value";

import { stringifyExact } from "../../src/wire/exact-json.ts";
import { metric } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { ServerProcess, envOf } from "../support/server-process.ts";
import { plainOf } from "../support/updates.ts";
import { USER, UserApi } from "../support/users.ts";

const Ids = Type.Array(Type.Object({ ID: Type.Integer() }));

const app = TestApp.forTests();
const api = UserApi.forTests(app);

beforeEach(async () => {
  await app.sql`truncate users restart identity`;
});

/** Makes users, whose ids begin at 1, with as many characters in a field. */
async function makeUsers(count: number, length = 1): Promise<void> {
  await app.sql`
    insert into users (app_locale, app_version, device_locale, device_mac, device_model, device_sdk,
      session_activity, session_id, session_register, tg_version, target_abi)
    select repeat('x', ${length}), '', '', '', '', '', 0, n, 0, '', '' from generate_series(1, ${count}::integer) n`;
}

async function idsOf(query = ""): Promise<number[]> {
  const answer = await api.list(query);
  return Value.Parse(Ids, await answer.json()).map(({ ID }) => ID);
}

test("no users are an empty array", async () => {
  const answer = await api.list();
  expect(answer.headers.get("content-type")).toBe("application/json; charset=utf-8");
  expect([answer.status, await answer.text()]).toEqual([200, "[]"]);
});

test("users are bare objects with every digit, by their ids", async () => {
  const first = await api.reported({ SessionID: 2n ** 63n - 1n });
  const second = await api.reported({ SessionID: -(2n ** 63n), DeviceModel: '"\\\n😀' });
  expect(await (await api.list()).text()).toBe(
    stringifyExact([
      { ...USER, ID: first, SessionID: 2n ** 63n - 1n },
      { ...USER, ID: second, SessionID: -(2n ** 63n), DeviceModel: '"\\\n😀' },
    ]),
  );
});

test.each([1, 999, 1000, 1001, 2000, 2500])("%d users are listed once each", async (count) => {
  await makeUsers(count);
  expect(await idsOf()).toEqual(Array.from({ length: count }, (_, i) => i + 1));
});

describe("a query", () => {
  beforeEach(async () => {
    await makeUsers(2500);
  });

  test.each([
    ["?after=0", 1, 2500],
    ["?after=2498", 2499, 2500],
    ["?limit=1", 1, 1],
    ["?limit=1000", 1, 1000],
    ["?limit=1500&after=7", 8, 1507],
    ["?limit=10000", 1, 2500],
    ["?Limit=1&other=2", 1, 2500],
  ])("%s lists from %d to %d", async (query, first, last) => {
    const ids = await idsOf(query);
    expect([ids[0], ids.at(-1), ids.length]).toEqual([first, last, last - first + 1]);
  });

  test("after the greatest id there is nothing", async () => {
    expect(await idsOf("?after=9223372036854775807&limit=5")).toEqual([]);
  });

  test.each([
    ["limit=0", "limit must be a whole number from 1 to 10000\n"],
    ["limit=10001", "limit must be a whole number from 1 to 10000\n"],
    ["limit=", "limit must be a whole number from 1 to 10000\n"],
    ["limit=1.5", "limit must be a whole number from 1 to 10000\n"],
    ["after=-1", "after must be a whole number from 0 to 9223372036854775807\n"],
    ["after=x", "after must be a whole number from 0 to 9223372036854775807\n"],
    ["after=9223372036854775808", "after must be a whole number from 0 to 9223372036854775807\n"],
  ])("%s is refused", async (query, text) => {
    expect(await plainOf(api.list(`?${query}`))).toEqual([400, text]);
  });
});

describe("a long list", () => {
  test("is sent as it is read", async () => {
    await makeUsers(120_000, 1000);
    await using server = await ServerProcess.start(envOf(app));
    const rss = async () => await metric(server, 'process_resident_memory_bytes{command="serve"}');
    const before = await rss();
    const { body } = await fetch(`${server.url}/api/v1/users`, {
      headers: { signature: api.service },
    });
    let bytes = 0;
    let growth = 0;
    for await (const chunk of body ?? []) {
      // Now and then, so that the server is read as fast as it writes.
      if (bytes % 10_000_000 > (bytes + chunk.length) % 10_000_000)
        growth = Math.max(growth, (await rss()) - before);
      bytes += chunk.length;
    }
    expect(bytes).toBeGreaterThan(120_000_000);
    expect(growth).toBeGreaterThan(0);
    expect(growth).toBeLessThan(100_000_000);
  });

  test("holds nothing that others need while nobody reads it", async () => {
    await makeUsers(20_000, 1000);
    const readers = await Promise.all(Array.from({ length: 15 }, async () => await api.list()));
    for (let i = 0; i < 20; i++) await api.reported({ SessionID: BigInt(-i - 1) });
    await Promise.all(readers.map(async ({ body }) => await body?.cancel()));
  });

  test("that fails half-way is broken off, so that no reader takes it for the whole", async () => {
    await makeUsers(20_000, 1000);
    const reader = (await api.list()).body?.getReader();
    await reader?.read();
    await app.sql`alter table users rename to users_away`;
    const read = async () => {
      for (;;) if ((await reader?.read())?.done !== false) return "the end";
    };
    const ended = await read().catch(() => "broken off");
    await app.sql`alter table users_away rename to users`;
    expect(ended).toBe("broken off");
  });
});
