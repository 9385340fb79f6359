import { describe, expect, test } from "bun:test";
import { Elysia } from "elysia";

import { AppError, renderError } from "../../../src/platform/errors.ts";
import { mount } from "../../../src/platform/http/policy.ts";
import { Router } from "../../../src/platform/http/router.ts";
import { ServerKeys } from "../../../src/platform/http/server-keys.ts";

const policy = { audience: "backend", tag: "Things", errors: renderError } as const;

const things = new Elysia({ name: "things", ...mount(policy) })
  .get("/v1/things", () => "all")
  .post("/v1/things", () => "made")
  .get("/v1/things/:id", ({ params }) => Response.json(params.id))
  .get("/v1/things/:id/parts", () => "parts")
  .put("/v1/things/:thing/parts", () => "parts")
  .get("/v1/things/all/:what", () => "what");

const router = new Router([things], new ServerKeys(["key"]));

function match(path: string, method = "GET") {
  const request = new Request(`http://a${path}`, { method, headers: { "x-server-key": "key" } });
  const { store: route, params } = router.match(request, path);
  return { ...route, answer: async () => await route.answer(request, params) };
}

/** Returns the methods that a path has, as a refusal names them. */
async function methodsOf(path: string): Promise<string | undefined> {
  const refusal: unknown = await match(path, "LOCK")
    .answer()
    .catch((error: unknown) => error);
  return refusal instanceof AppError ? refusal.headers["allow"] : undefined;
}

test("a literal path has all its methods", async () => {
  expect(await methodsOf("/v1/things")).toBe("GET, POST, OPTIONS");
});

test("a path whose parameters have other names for other methods has all of them", async () => {
  expect(await methodsOf("/v1/things/5/parts")).toBe("GET, PUT, OPTIONS");
});

test.each([
  ["/v1/things/5", "/v1/things/:id"],
  ["/v1/things/5/parts", "/v1/things/:id/parts"],
  ["/v1/things/all/parts", "/v1/things/all/:what"],
])("%s has the label %s", (path, template) => {
  expect(match(path).template).toBe(template);
});

test.each(["/v1", "/v1/things/", "/v1/things/5/", "/v1/things/5/parts/6", "/v1xthings", ""])(
  "%p is no route",
  async (path) => {
    expect(match(path).template).toBe("unknown");
    expect(match(path).answer()).rejects.toThrow("no such route");
    expect(await methodsOf(path)).toBeUndefined();
  },
);

describe("a parameter", () => {
  test.each([
    ["/v1/things/a%20b", "a b"],
    ["/v1/things/%C3%A9", "é"],
    ["/v1/things/a%2Fb", "a/b"],
    ["/v1/things/%ff", null],
  ])("of %s is %p", async (path, value) => {
    expect(await (await match(path).answer()).json()).toBe(value);
  });
});

test("a slice that does not say who calls it is refused", () => {
  const silent = new Elysia({ name: "silent" }).get("/silent", () => "");
  expect(() => new Router([things, silent], new ServerKeys([]))).toThrow(
    "nothing says who calls GET /silent",
  );
});

test("a slice that is mounted within another keeps its own policy", () => {
  const outer = { ...policy, audience: "app", headers: ["x"], keyRefusal: "no" } as const;
  const slice = new Elysia({ name: "outer", ...mount(outer) }).get("/own", () => "").use(things);
  const nested = new Router([slice], new ServerKeys([]));
  const policyAt = (path: string) =>
    nested.match(new Request(`http://a${path}`), path).store.policy;
  expect(policyAt("/own")).toEqual(outer);
  expect(policyAt("/v1/things")).toEqual(policy);
});
