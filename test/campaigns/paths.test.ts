import { beforeAll, describe, expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { PushApi, refusalOf, resultOf } from "../support/push-api.ts";

const MIB = 2 ** 20;
const KEY = { "x-server-key": "k" };
/** The routes with a literal colon: what is before it, what follows it, and a body that is well. */
const LITERAL = {
  search: ["/devices/-/", "search", {}],
  add: ["/devices/ann/properties/", "add", { properties: [] }],
  launch: ["/notifications/{uuid}/", "launch", {}],
  estimate: ["/notifications/-/", "estimate", { conditions: {} }],
  log: ["/internal/devices/logs/notification", "add", { device_ids: [], notification_id: "{id}" }],
  increase: ["/internal/notifications/{uuid}/sent", "increase", { ios: 0, android: 0 }],
} as const;

const app = TestApp.forTests({ env: { SERVER_KEYS: "k" } });
const api = new PushApi(app, KEY);
let uuid: string;
let id: number;

beforeAll(async () => {
  await api.putDevice({ external_id: "ann" });
  ({ uuid, id } = await api.draft());
});

function filled(path: string): string {
  return path.replace("{uuid}", uuid);
}

function filledBody(body: object): string {
  return JSON.stringify(body).replace('"{id}"', String(id));
}

describe.each(Object.entries(LITERAL))("%s", (_name, [before, after, body]) => {
  test.each([":", "%3A", "%3a"])("answers with %s, and with a slash at the end", async (colon) => {
    for (const end of ["", "/"])
      await api.ok("POST", filled(before) + colon + after + end, filledBody(body));
  });

  test("is all that answers there", async () => {
    const others = [
      after,
      `x${after}`,
      `:${after}x`,
      `::${after}`,
      `:${after.slice(1)}`,
      ":",
      ":zzz",
      `:${after.toUpperCase()}`,
      `%253A${after}`,
      `.${after}`,
      `: ${after}`,
      `:${after}%00`,
      `:${after}%2F`,
      `%20:${after}`,
      `/:${after}/x`,
      `:${after}:${after}`,
    ];
    for (const other of others) {
      const path = filled(before) + other;
      expect([path, (await api.refused("POST", path, filledBody(body)))[0]]).toEqual([path, 404]);
    }
  });

  test("answers to no other method", async () => {
    for (const method of ["GET", "PUT", "DELETE", "PATCH"]) {
      const path = `${filled(before)}:${after}`;
      const [status] = await api.refused(method, path);
      expect([path, [404, 405].includes(status)]).toEqual([path, true]);
    }
  });
});

test("actions of one kind are none of another", async () => {
  const paths = [
    `/notifications/${uuid}/:estimate`,
    "/notifications/-/:launch",
    "/notifications/-/:search",
    "/devices/-/:add",
    "/devices/ann/:search",
    "/devices/ann/properties/:search",
    `/internal/notifications/${uuid}/notification:add`,
    "/internal/devices/logs/sent:increase",
  ];
  for (const path of paths) {
    const [status] = await api.refused("POST", path, { ios: 1, android: 1, conditions: {} });
    expect([path, status]).toEqual([path, 404]);
  }
});

test("a slash at the end makes no difference", async () => {
  const device = { external_id: "ann", push_token: "t" };
  const draft = { title: "t", body: "b", conditions: {} };
  const requests: [string, string, object?][] = [
    ["PUT", "/devices/", device],
    ["GET", "/devices/ann/"],
    ["GET", "/devices/ann/notifications/"],
    ["GET", "/devices/ann/notifications/?size=1"],
    ["POST", "/notifications/", draft],
    ["GET", "/notifications/"],
    ["GET", "/notifications/?size=1"],
    ["GET", `/notifications/${uuid}/`],
    ["PUT", `/notifications/${uuid}/status/`, { status: 0 }],
  ];
  for (const [method, path, body] of requests) await api.ok(method, path, body);
});

test("the search wins over a device that is called like its dash, which has the other paths", async () => {
  const device = await api.putDevice({ external_id: "-" });
  expect(await api.device("-")).toEqual(device);
  expect(await api.events("-")).toMatchObject({ total: 0 });
  expect(await api.setProperties("-", [])).toEqual(device);
  expect(await api.search({ external_ids: ["-"] })).toEqual({ total: 1, items: [device] });
});

describe("a body", () => {
  const routes: [method: string, path: string][] = [
    ["PUT", "/devices"],
    ["POST", "/devices/ann/properties/:add"],
    ["POST", "/devices/-/:search"],
    ["POST", "/notifications"],
    ["PUT", "/notifications/{uuid}/status"],
    ["POST", "/notifications/-/:estimate"],
    ["POST", "/internal/devices/logs/notification:add"],
    ["POST", "/internal/notifications/{uuid}/sent:increase"],
  ];

  test.each(routes)("that is no JSON is refused: %s %s", async (method, path) => {
    for (const text of [
      undefined,
      "",
      " ",
      "{",
      "{'a': 1}",
      "a=1",
      "undefined",
      "{}x",
      "NaN",
      "\0",
    ])
      expect([text, ...(await api.refused(method, filled(path), text))]).toEqual([
        text,
        400,
        "Not JSON type",
      ]);
  });

  test.each(routes)("that is no object is refused: %s %s", async (method, path) => {
    for (const text of ["[]", "[{}]", "null", "true", "5", '"text"', '"{}"'])
      expect([text, (await api.refused(method, filled(path), text))[0]]).toEqual([text, 400]);
  });

  test("that is not UTF-8 is refused, because different ids would become one", async () => {
    const around = ['{"external_id":"', '","push_token":"t"}'].map((text) => Buffer.from(text));
    const [before = Buffer.alloc(0), after = before] = around;
    for (const byte of [0x80, 0xff]) {
      const bytes = Buffer.concat([before, Buffer.from([byte]), after]);
      expect((await api.refused("PUT", "/devices", bytes))[0]).toBe(400);
    }
  });

  test.each(["\\ud800", "\\udc00x"])(
    "with half a character in an id is refused: %s",
    async (half) => {
      const text = `{"external_id":"${half}","push_token":"t"}`;
      const named = expect.stringContaining("external_id");
      expect(await api.refused("PUT", "/devices", text)).toEqual([400, named]);
    },
  );

  test.each(routes)("over 1 MiB is too large: %s %s", async (method, path) => {
    const text = `{"unknown":"${"x".repeat(MIB)}"}`;
    expect((await api.refused(method, filled(path), text))[0]).toBe(413);
    const chunks = new ReadableStream({
      start(controller) {
        for (let nth = 0; nth < 17; nth++) controller.enqueue(new Uint8Array(64 * 1024).fill(32));
        controller.close();
      },
    });
    expect((await api.refused(method, filled(path), chunks))[0]).toBe(413);
  });

  test("of 1 MiB is not, and may come in chunks", async () => {
    const bytes = Buffer.from("{}".padEnd(MIB));
    await api.ok("POST", "/devices/-/:search", bytes);
    const chunks = new ReadableStream({
      start(controller) {
        for (let at = 0; at < MIB; at += 65_536)
          controller.enqueue(bytes.subarray(at, at + 65_536));
        controller.close();
      },
    });
    await api.ok("POST", "/devices/-/:search", chunks);
    expect((await api.refused("POST", "/devices/-/:search", "{}".padEnd(MIB + 1)))[0]).toBe(413);
  });
});

test("a path or method that does not exist is refused in the envelope", async () => {
  const paths = [
    "/devices/a/b",
    "/devices/a/properties",
    "/notifications/a/b/c",
    "/internal",
    "/internal/x",
  ];
  for (const path of paths)
    expect([path, (await api.refused("GET", path))[0]]).toEqual([path, 404]);
  for (const [method, path] of [
    ["DELETE", "/devices"],
    ["POST", "/devices/ann"],
    ["PATCH", `/notifications/${uuid}`],
  ] as const) {
    const answer = await api.send(method, path);
    expect(answer.headers.get("allow")).toMatch(/GET|PUT/);
    expect((await refusalOf(answer))[0]).toBe(405);
  }
});

test("a fault of ours is told in the envelope and tells nothing of itself", async () => {
  await using broken = await TestApp.start({ env: { SERVER_KEYS: "k" } });
  await broken.sql`alter table devices rename to devices_away`;
  await broken.sql`alter table notifications rename to notifications_away`;
  const there = new PushApi(broken, KEY);
  const fault: [number, string] = [500, "internal error"];
  expect(await there.refused("GET", "/devices/ann")).toEqual(fault);
  expect(await there.refused("POST", "/devices/-/:search", {})).toEqual(fault);
  expect(await there.refused("GET", "/notifications")).toEqual(fault);
  expect(await there.refused("GET", `/notifications/${uuid}`)).toEqual(fault);
  const increase = `/internal/notifications/${uuid}/sent:increase`;
  expect(await there.refused("POST", increase, { ios: 1, android: 1 })).toEqual(fault);
});

test("an answer is JSON of the three keys, in their order", async () => {
  const answer = await api.send("GET", "/notifications?size=1");
  expect(answer.headers.get("content-type")).toStartWith("application/json");
  const text = await answer.clone().text();
  expect(text).toMatch(/^\{"success":true,"result":\[.*\],"reason":null\}$/s);
  expect(await resultOf(answer)).toBeArrayOfSize(1);
});
