import { expect, test } from "bun:test";

import { RouteTable } from "../../../src/platform/http/route-table.ts";

const table = new RouteTable([
  { method: "GET", path: "/v1/things" },
  { method: "post", path: "/v1/things" },
  { method: "GET", path: "/v1/things/:id" },
  { method: "GET", path: "/v1/things/:id/parts" },
]);

test("a literal path has all its methods", () => {
  expect(table.match("/v1/things")?.methods).toEqual(new Set(["GET", "POST"]));
});

test.each([
  ["/v1/things/5", "/v1/things/:id"],
  ["/v1/things/5/parts", "/v1/things/:id/parts"],
])("%s has the label %s", (path, template) => {
  expect(table.match(path)?.template).toBe(template);
});

test.each(["/v1", "/v1/things/", "/v1/things/5/", "/v1/things/5/parts/6", "/v1xthings", ""])(
  "%p is no route",
  (path) => {
    expect(table.match(path)).toBeUndefined();
  },
);
