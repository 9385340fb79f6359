import { describe, expect, test } from "bun:test";

import { refusalOf } from "../../support/answers.ts";
import { KEYED, TestApp } from "../../support/app.ts";
import { RawConnection } from "../../support/raw-connection.ts";

const ROUTES: [path: string, methods: string[]][] = [
  ["/", ["GET"]],
  ["/livez", ["GET"]],
  ["/readyz", ["GET"]],
  ["/metrics", ["GET"]],
  ["/docs", ["GET"]],
  ["/docs/json", ["GET"]],
  ["/v1/ios/start", ["POST"]],
  ["/v1/ios/append", ["POST"]],
  ["/v1/ios/i", ["POST"]],
  ["/v1/ios/late", ["POST"]],
  ["/v1/ios/images", ["POST"]],
  ["/v1/mobile/start", ["POST"]],
  ["/v1/mobile/i", ["POST"]],
  ["/v1/mobile/late", ["POST"]],
  ["/v1/mobile/images", ["POST"]],
  ["/v1/sessions", ["GET"]],
  ["/v1/sessions/1", ["GET"]],
  ["/v1/sessions/1/batches", ["GET"]],
  ["/v1/sessions/1/images", ["GET"]],
  ["/v1/images/1/a", ["GET"]],
];

const app = TestApp.forTests();

describe("a known path", () => {
  test.each(ROUTES)("%s names its methods to who uses another", async (path, methods) => {
    const others = ["GET", "POST", "PUT", "PATCH", "DELETE"].filter(
      (one) => !methods.includes(one),
    );
    expect(others).toHaveLength(4);
    for (const method of others) {
      const answer = await app.fetch(path, { method });
      expect(answer.headers.get("allow")).toBe([...methods, "OPTIONS"].join(", "));
      expect(await refusalOf(answer)).toEqual([405, "method not allowed"]);
    }
  });

  test("takes HEAD where it takes GET, and nowhere else", async () => {
    using connection = await RawConnection.open(app.url);
    for (const [path, methods] of ROUTES.filter(([one]) => !one.includes("/1"))) {
      connection.head(`HEAD ${path}`, KEYED);
      const { status } = await connection.response({ bodyless: true });
      const { status: expected } = await app.fetch(path, {
        method: methods.includes("GET") ? "GET" : "PUT",
      });
      expect([path, status]).toEqual([path, expected]);
    }
  });

  test("answers HEAD with the length of its body, and none of it", async () => {
    using connection = await RawConnection.open(app.url);
    for (const path of ["/livez", "/docs", "/docs/json", "/docs/swagger-ui.css"]) {
      connection.head(`HEAD ${path}`);
      const { headers } = await connection.response({ bodyless: true });
      const body = await (await app.fetch(path)).bytes();
      expect([path, headers.get("content-length")]).toEqual([path, String(body.length)]);
    }
    expect(connection.rest).toHaveLength(0);
  });

  test.each([
    "//livez",
    "/livez/",
    "/livez//",
    "/ingest/livez",
    "//ingest///livez/?x=1",
    "/livez?",
  ])("is found as %s", async (path) => {
    expect(await (await app.fetch(path)).json()).toEqual({ status: "ok" });
  });

  test.each(["a", "ab", "abc", "abcd", "a:1", "[::1]", "localhost", "xn--tst-qla.example"])(
    "is found at the host %s",
    async (host) => {
      using connection = await RawConnection.open(app.url);
      for (const path of ["/livez", "/livez/", "/"]) {
        connection.head(`GET ${path}`, { host });
        expect((await connection.response()).status).toBe(200);
      }
      connection.head("GET /v1/sessions/1/nowhere", { host });
      expect((await connection.response()).status).toBe(404);
    },
  );

  test("is found without a host, as the health checks of old proxies ask", async () => {
    for (const path of ["/", "/livez", "//livez/", "/readyz?from=http://proxy"]) {
      using connection = await RawConnection.open(app.url);
      connection.write(`GET ${path} HTTP/1.0\r\n\r\n`);
      expect([path, (await connection.response()).status]).toEqual([path, 200]);
    }
  });
});

describe("an unknown path", () => {
  test.each([
    "/nowhere",
    "/v1",
    "/v1/ios",
    "/V1/ios/start",
    "/v1/ios/start/more",
    "/ingest",
    "/ingest/ingest/livez",
    "/v1/sessions/1/2/3",
    "/docs/nowhere",
    "/docs/../../package.json",
    "/%2e%2e/etc/passwd",
    "/livez%2f",
    "/livez%00",
    "/v1/web/nowhere",
    "/inside/x",
    "/*",
  ])("%s is a JSON 404 for every method", async (path) => {
    for (const method of ["GET", "POST", "DELETE", "OPTIONS"])
      expect(await refusalOf(app.fetch(path, { method }))).toEqual([404, "no such route"]);
  });

  test("may be long", async () => {
    const answer = app.fetch(`/${"a/".repeat(3000)}`);
    expect(await refusalOf(answer)).toEqual([404, "no such route"]);
  });
});

describe("the request id", () => {
  const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}$/;

  test("is the caller's own when it can be logged", async () => {
    for (const path of ["/livez", "/nowhere", "/v1/ios/start"])
      for (const id of ["abc-123_X", "x".repeat(64)]) {
        const { headers } = await app.fetch(path, { headers: { "x-request-id": id } });
        expect(headers.get("x-request-id")).toBe(id);
      }
  });

  test.each(["", "x".repeat(65), "a b", "a\tb", 'a"}', "é"])(
    "is a new one instead of %p",
    async (given) => {
      const seen = new Set<string>();
      for (const path of ["/livez", "/nowhere", "/v1/ios/start"]) {
        const { headers } = await app.fetch(path, { headers: { "x-request-id": given } });
        const id = headers.get("x-request-id") ?? "";
        expect(id).toMatch(UUID);
        seen.add(id);
      }
      expect(seen.size).toBe(3);
    },
  );
});
