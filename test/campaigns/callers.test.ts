import { describe, expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { PushApi, resultOf } from "../support/push-api.ts";

const UUID = "5f0c0f0e-3a51-4a57-9d4b-6f4d6d1c1b1a";
const ADMIN = "https://admin.example";
const ROUTES: [method: string, path: string][] = [
  ["PUT", "/devices"],
  ["GET", "/devices/ann"],
  ["POST", "/devices/ann/properties/:add"],
  ["GET", "/devices/ann/notifications"],
  ["POST", "/devices/-/:search"],
  ["POST", "/notifications"],
  ["GET", "/notifications"],
  ["GET", `/notifications/${UUID}`],
  ["PUT", `/notifications/${UUID}/status`],
  ["POST", `/notifications/${UUID}/:launch`],
  ["POST", "/notifications/-/:estimate"],
];
const INTERNAL: [method: string, path: string][] = [
  ["POST", "/internal/devices/logs/notification:add"],
  ["POST", `/internal/notifications/${UUID}/sent:increase`],
];

describe("with server keys", () => {
  const app = TestApp.forTests({ env: { SERVER_KEYS: "k1,k2", CORS_ORIGINS: ADMIN } });
  const api = new PushApi(app);

  test.each(ROUTES)("%s %s needs one of them, whatever else is wrong", async (method, path) => {
    const bodies = method === "GET" ? [undefined] : [undefined, "{", {}, "x".repeat(2 ** 20 + 1)];
    for (const key of [undefined, "", "k", "k3", "K1", "k1,k2"])
      for (const body of bodies) {
        const headers = key === undefined ? {} : { "x-server-key": key };
        const [status, reason] = await api.refused(method, path, body, headers);
        expect([status, reason]).toEqual([403, expect.stringContaining("X-Server-Key")]);
      }
  });

  test("either key opens, from wherever it comes", async () => {
    for (const key of ["k1", "k2"])
      for (const from of [
        {},
        { "x-forwarded-for": "192.0.2.1" },
        { origin: "https://a.example" },
      ]) {
        const headers = { "x-server-key": key, ...from };
        expect(await api.ok("GET", "/notifications", undefined, headers)).toBeArray();
      }
  });

  test.each([...ROUTES, ...INTERNAL])(
    "a page of a listed origin may call %s %s",
    async (...route) => {
      const [method, path] = route;
      const preflight = await api.send("OPTIONS", path, undefined, {
        origin: ADMIN,
        "access-control-request-method": method,
        "access-control-request-headers": "x-server-key, content-type",
      });
      expect(preflight.ok).toBe(true);
      expect(preflight.headers.get("access-control-allow-methods")).toContain(method);
      const allowed = preflight.headers.get("access-control-allow-headers")?.toLowerCase();
      for (const name of ["x-server-key", "content-type"]) expect(allowed).toContain(name);
      for (const headers of [{}, { "x-server-key": "k1" }]) {
        const answer = await api.send(method, path, undefined, { origin: ADMIN, ...headers });
        await answer.body?.cancel();
        for (const one of [preflight, answer]) {
          expect(one.headers.get("access-control-allow-origin")).toBe(ADMIN);
          expect(one.headers.get("access-control-allow-credentials")).toBe(null);
          expect(one.headers.get("vary")?.toLowerCase()).toContain("origin");
        }
      }
    },
  );

  test("such a page may read the total", async () => {
    const headers = { origin: ADMIN, "x-server-key": "k1" };
    for (const answer of [
      await api.send("GET", "/notifications", undefined, headers),
      await api.send("POST", "/devices/-/:search", {}, headers),
    ]) {
      await resultOf(answer);
      const exposed = answer.headers.get("access-control-expose-headers")?.toLowerCase();
      expect(exposed).toContain("x-total-count");
    }
  });

  test.each(["https://evil.example", "http://admin.example", `${ADMIN}.evil.example`, "null"])(
    "a page of %s may read nothing",
    async (origin) => {
      for (const [method, path] of [...ROUTES, ...INTERNAL])
        for (const asked of [method, "OPTIONS", "DELETE"]) {
          const answer = await api.send(asked, path, undefined, { origin, "x-server-key": "k1" });
          await answer.body?.cancel();
          expect(answer.headers.get("access-control-allow-origin")).toBe(null);
        }
    },
  );
});

describe("without server keys", () => {
  const app = TestApp.forTests({ env: { SERVER_KEYS: "" } });
  const api = new PushApi(app);

  test.each<[string, Record<string, string>]>([
    ["a program on this machine", {}],
    ["a proxy", { "x-forwarded-for": "127.0.0.1" }],
    ["a page of another site", { origin: "https://evil.example" }],
    ["a page of this server", { host: "localhost", origin: "http://localhost" }],
  ])("%s may do nothing, also with some key", async (_who, headers) => {
    for (const [method, path] of [...ROUTES, ...INTERNAL])
      for (const key of [{}, { "x-server-key": "" }, { "x-server-key": "k1" }]) {
        const [status, reason] = await api.refused(method, path, undefined, { ...headers, ...key });
        expect([path, status, reason]).toEqual([path, 403, expect.any(String)]);
      }
  });
});
