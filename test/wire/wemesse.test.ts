import { describe, expect, test } from "bun:test";

import { AppError, unavailable } from "../../src/platform/errors.ts";
import { bareJson, renderPlainText } from "../../src/wire/wemesse.ts";
import { TestApp } from "../support/app.ts";
import { RawConnection } from "../support/raw-connection.ts";
import { plainOf } from "../support/updates.ts";

const app = TestApp.forTests();

test("a success is bare JSON with every digit", async () => {
  const answer = bareJson([{ ID: 2n ** 63n - 1n, Name: "a" }]);
  expect(answer.headers.get("content-type")).toBe("application/json; charset=utf-8");
  expect(await answer.text()).toBe('[{"ID":9223372036854775807,"Name":"a"}]');
});

test("an error is its message and a newline, and keeps its headers", async () => {
  const answer = renderPlainText(unavailable("later", 7));
  expect(answer.headers.get("retry-after")).toBe("7");
  expect(await plainOf(answer)).toEqual([503, "later\n"]);
  expect(await plainOf(renderPlainText(new AppError("not_found", "record not found")))).toEqual([
    404,
    "record not found\n",
  ]);
});

test("a fault of ours is not told", async () => {
  for (const fault of [new Error("secret"), "secret", undefined])
    expect(await plainOf(renderPlainText(fault))).toEqual([500, "internal error\n"]);
});

describe("the update server's paths", () => {
  test.each([
    "/api",
    "/api/",
    "/api/v1",
    "/api/v1/",
    "/api/v1/users/",
    "/api/v1/users//",
    "//api//v1/users/",
    "/ingest/api/v1/users/",
    "/api/v1/users/1",
    "/api/v1/Users",
    "/api/v1/updates/",
    "/source",
  ])("%s is an unknown one for every method", async (path) => {
    for (const method of ["GET", "POST", "DELETE", "OPTIONS"])
      expect([path, ...(await plainOf(app.fetch(path, { method })))]).toEqual([
        path,
        404,
        "404 page not found\n",
      ]);
  });

  test.each(["/api/v1/users", "//api///v1/users", "/ingest/api/v1/users?x=/"])(
    "%s is a known one",
    async (path) => {
      expect(await plainOf(app.fetch(path))).toEqual([401, "record not found\n"]);
    },
  );

  test.each(["PUT", "PATCH", "DELETE"])(
    "%s is an empty 405 that names the methods",
    async (method) => {
      const answer = await app.fetch("/api/v1/users", { method, body: "x" });
      expect([answer.status, await answer.text()]).toEqual([405, ""]);
      expect(answer.headers.get("allow")).toBe("POST, GET, OPTIONS");
      expect(answer.headers.get("content-type")).toBeNull();
    },
  );

  test("have no HEAD", async () => {
    using connection = await RawConnection.open(app.url);
    for (const [path, status] of [
      ["/api/v1/users", 405],
      ["/api/v1/nowhere", 404],
      ["/livez", 200],
    ] as const) {
      connection.head(`HEAD ${path}`);
      expect([path, (await connection.response({ bodyless: true })).status]).toEqual([
        path,
        status,
      ]);
    }
  });
});
