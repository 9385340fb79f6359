import { describe, expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { RawConnection } from "../support/raw-connection.ts";
import { plainOf } from "../support/updates.ts";
import { UserApi } from "../support/users.ts";

const INVALID = "CreateConfigHandler read invalid params\n";
const BODY_BYTES_MAX = 64 * 1024;

const app = TestApp.forTests();
const api = UserApi.forTests(app);

describe("who has no valid signature", () => {
  test.each([
    "",
    " ",
    "x",
    "unknown-signature-0000",
    "x".repeat(257),
    "a b",
    "' or ''='",
    "é".repeat(20),
  ])("but %p gets a 401, whatever else is wrong", async (signature) => {
    expect(await plainOf(api.post("{", { signature }))).toEqual([401, "record not found\n"]);
    expect(await plainOf(api.list("?limit=x", { signature }))).toEqual([401, "record not found\n"]);
  });

  test("or none at all gets a 401, also with a server key or the signature elsewhere", async () => {
    for (const headers of [{}, { "x-server-key": api.service }, { authorization: api.service }])
      expect(await plainOf(api.list(`?signature=${api.service}`, headers))).toEqual([
        401,
        "record not found\n",
      ]);
  });

  test("or two, or a part, or another case of one gets a 401", async () => {
    for (const signature of [
      `${api.service}, ${api.service}`,
      api.service.slice(0, -1),
      `${api.service}x`,
      api.service.toUpperCase(),
    ])
      expect(await plainOf(api.list("", { signature }))).toEqual([401, "record not found\n"]);
  });

  test("gets it before the body is read", async () => {
    using connection = await RawConnection.open(app.url);
    connection.head("POST /api/v1/users", {
      "content-length": 1000,
      signature: "unknown-signature",
    });
    expect((await connection.response()).status).toBe(401);
  });
});

test("the other role is a 403, before the body is read", async () => {
  expect(await plainOf(api.post("{", { signature: api.service }))).toEqual([403, "forbidden\n"]);
  expect(await plainOf(api.list("", { signature: api.client }))).toEqual([403, "forbidden\n"]);
  expect((await api.post("{}", { signature: api.client })).status).toBe(200);
  expect((await api.list("", { signature: api.service })).status).toBe(200);
});

test("the header's name may be in any case", async () => {
  expect((await api.list("", { SIGNATURE: api.service })).status).toBe(200);
});

test.each(["", "null", "[]", "{", '{"ID":"1"}', '{"SessionID":1.0}', '{"AppLocale":"\\u0000"}'])(
  "the body %p is a 400 and leaves nothing",
  async (body) => {
    await app.sql`truncate users`;
    expect(await plainOf(api.post(body))).toEqual([400, INVALID]);
    expect(await app.sql`select from users`).toHaveLength(0);
  },
);

test("a body of 64 KiB is taken, whatever its type, one byte more is a 413", async () => {
  const body = "{}".padEnd(BODY_BYTES_MAX);
  const headers = { signature: api.client, "content-type": "application/x-www-form-urlencoded" };
  expect((await api.post(body, headers)).status).toBe(200);
  const chunked = new Blob([body, " "]).stream();
  for (const longer of [`${body} `, chunked])
    expect(await plainOf(api.post(longer))).toEqual([
      413,
      `the body is over the limit of ${BODY_BYTES_MAX} bytes\n`,
    ]);
});

test("a fault of ours is a 500 that tells nothing", async () => {
  await app.sql`alter table users rename to users_away`;
  const answers = [await plainOf(api.post("{}")), await plainOf(api.list())];
  await app.sql`alter table users_away rename to users`;
  expect(answers).toEqual([
    [500, "internal error\n"],
    [500, "internal error\n"],
  ]);
});
