import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { pino } from "pino";

import { startServer } from "../../src/server.ts";
import { refusalOf } from "../support/answers.ts";
import { KEYED, SERVER_KEY, TestApp } from "../support/app.ts";
import { RawConnection } from "../support/raw-connection.ts";

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

let app: TestApp;

beforeAll(async () => {
  app = await TestApp.start();
});

afterAll(async () => {
  await app[Symbol.asyncDispose]();
});

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
    "/v1/web/start",
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

describe("the log", () => {
  type Line = Record<string, unknown>;

  /** What a second server of the same database logs while `act` uses it. */
  async function logged(act: (url: string) => Promise<void>, level = "info"): Promise<Line[]> {
    const lines: Line[] = [];
    const log = pino({ level }, { write: (line: string) => void lines.push(JSON.parse(line)) });
    const server = await startServer(app.config, app.databaseUrl, { log });
    try {
      await act(server.url.replace(/\/$/, ""));
    } finally {
      await server.stop();
    }
    return lines;
  }

  test("has a line for every management request, with what an operator looks for", async () => {
    const lines = await logged(async (url) => {
      for (let n = 0; n < 30; n++)
        await fetch(`${url}/v1/sessions/${n}?secret=x`, {
          headers: { "x-request-id": `r-${n}`, ...KEYED },
        });
    });
    const requests = lines.filter(({ msg }) => msg === "request");
    expect(requests).toHaveLength(30);
    expect(requests[7]).toMatchObject({
      id: "r-7",
      method: "GET",
      path: "/v1/sessions/7",
      status: 404,
      ms: expect.any(Number),
      address: "127.0.0.1",
    });
    expect(JSON.stringify(lines)).not.toContain("secret");
    expect(JSON.stringify(lines)).not.toContain(SERVER_KEY);
  });

  test("is sampled for SDK requests and unknown paths, and never holds a token", async () => {
    const { token } = await app.aSession();
    const lines = await logged(async (url) => {
      const headers = { authorization: `Bearer ${token}` };
      for (let n = 0; n < 150; n++) {
        const path = n % 2 === 0 ? "/v1/ios/i" : `/nowhere-${n}`;
        await fetch(url + path, { method: "POST", headers, body: "x" });
      }
    });
    const requests = lines.filter(({ msg }) => msg === "request").length;
    expect(requests).toBeGreaterThan(0);
    // Twenty a second, and the loop takes less than three.
    expect(requests).toBeLessThanOrEqual(60);
    expect(JSON.stringify(lines)).not.toContain(token.slice(-20));
  });

  test("has a fault of ours in full, which the client is not told", async () => {
    await app.sql`alter table sessions rename to sessions_away`;
    const lines = await logged(async (url) => {
      const answer = await fetch(`${url}/v1/sessions/1`, { headers: KEYED });
      expect(await refusalOf(answer)).toEqual([500, "internal error"]);
    }, "error");
    await app.sql`alter table sessions_away rename to sessions`;
    const [fault] = lines.filter(({ msg }) => msg === "request failed");
    expect(fault).toMatchObject({ method: "GET" });
    expect(JSON.stringify(fault)).toContain('relation \\"sessions\\" does not exist');
  });
});
