import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { Type } from "typebox";
import { Value } from "typebox/value";

import { Clients } from "../../src/platform/clients.ts";
import { ServerKeys } from "../../src/platform/server-keys.ts";
import { objectOf, refusalOf } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";

const Documents = Type.Object({
  paths: Type.Record(
    Type.String(),
    Type.Record(Type.String(), Type.Object({ tags: Type.Optional(Type.Array(Type.String())) })),
  ),
});

/** Every documented management route, with its parameters filled in. */
async function managementPaths(app: TestApp): Promise<string[]> {
  const { paths } = Value.Parse(Documents, await objectOf(app.fetch("/docs/json")));
  const reading = Object.entries(paths).filter(([, methods]) =>
    methods["get"]?.tags?.includes("Reading"),
  );
  return reading.map(([path]) => path.replaceAll(/\{\w+\}/g, "1"));
}

describe("with server keys", () => {
  let app: TestApp;
  let paths: string[];

  beforeAll(async () => {
    app = await TestApp.start({ env: { SERVER_KEYS: "alpha, beta-2" } });
    paths = await managementPaths(app);
  });

  afterAll(async () => {
    await app[Symbol.asyncDispose]();
  });

  test("there are management routes, and each refuses who has no key before it looks at anything else", async () => {
    expect(paths.length).toBeGreaterThanOrEqual(5);
    for (const path of [
      ...paths,
      "/v1/sessions?projectId=x",
      "/v1/images/x/y",
      "/ingest/v1/sessions",
    ])
      expect([path, ...(await refusalOf(app.fetch(path)))]).toEqual([
        path,
        403,
        "missing X-Server-Key",
      ]);
  });

  test.each(["", "alph", "alphaa", "Alpha", "alpha,beta-2", "alpha, beta-2", "null", "beta"])(
    "the key %p is none",
    async (key) => {
      for (const path of paths) {
        const [status, text] = await refusalOf(
          app.fetch(path, { headers: { "x-server-key": key } }),
        );
        expect([status, text]).toEqual([403, "wrong X-Server-Key"]);
      }
    },
  );

  test.each(["alpha", "beta-2"])("the key %s opens, from wherever it comes", async (key) => {
    for (const headers of [
      {},
      { "x-forwarded-for": "192.0.2.1" },
      { origin: "https://a.example" },
    ]) {
      const answer = app.fetch(`/v1/sessions?projectId=${app.project.id}`, {
        headers: { "x-server-key": key, ...headers },
      });
      expect(await objectOf(answer)).toHaveProperty("sessions");
    }
  });

  test("another header, the query or a token does not open", async () => {
    const { token } = await app.aSession();
    const path = `/v1/sessions?projectId=${app.project.id}`;
    const attempts = [
      app.fetch(path, { headers: { authorization: "Bearer alpha" } }),
      app.fetch(path, { headers: { authorization: `Bearer ${token}` } }),
      app.fetch(path, { headers: { cookie: "x-server-key=alpha" } }),
      app.fetch(`${path}&x-server-key=alpha`),
    ];
    for (const attempt of attempts)
      expect(await refusalOf(attempt)).toEqual([403, "missing X-Server-Key"]);
  });

  test("SDK routes, health and documentation need none", async () => {
    await app.aSession();
    for (const path of ["/", "/livez", "/readyz", "/metrics", "/docs", "/docs/json"])
      expect([path, (await app.fetch(path)).status]).toEqual([path, 200]);
  });
});

describe("without server keys", () => {
  let app: TestApp;
  let paths: string[];

  beforeAll(async () => {
    app = await TestApp.start();
    paths = await managementPaths(app);
  });

  afterAll(async () => {
    await app[Symbol.asyncDispose]();
  });

  function list(headers: Record<string, string>): Promise<Response> {
    return app.fetch(`/v1/sessions?projectId=${app.project.id}`, { headers });
  }

  test.each<[string, (port: string) => Record<string, string>]>([
    ["with nothing", () => ({})],
    ["under the name localhost", (port) => ({ host: `localhost:${port}` })],
    ["under the name localhost, without a port", () => ({ host: "localhost" })],
    ["under an address of this machine", (port) => ({ host: `127.0.0.7:${port}` })],
    ["under its IPv6 address", (port) => ({ host: `[::1]:${port}` })],
    [
      "from its own pages",
      (port) => ({ host: `localhost:${port}`, origin: `http://localhost:${port}` }),
    ],
  ])("a program on this machine may read: %s", async (_how, headers) => {
    expect(await objectOf(list(headers(new URL(app.url).port)))).toHaveProperty("sessions");
  });

  test.each<[string, Record<string, string>]>([
    ["for a proxy", { "x-forwarded-for": "127.0.0.1" }],
    ["for a proxy that says nothing", { "x-forwarded-for": "" }],
    ["for a proxy by X-Real-IP", { "x-real-ip": "127.0.0.1" }],
    ["for a proxy by X-Forwarded-Host", { "x-forwarded-host": "localhost" }],
    ["for a proxy by X-Forwarded-Proto", { "x-forwarded-proto": "http" }],
    ["for a proxy by Forwarded", { forwarded: "for=127.0.0.1" }],
    ["for a proxy by Via", { via: "1.1 proxy" }],
    ["for a page of another site", { origin: "https://evil.example" }],
    ["for a page without an origin", { origin: "null" }],
    ["for a page of another port", { origin: "http://localhost:1" }],
    ["for a page by TLS", { host: "localhost:80", origin: "https://localhost:80" }],
    ["for a name that only leads here", { host: "evil.example" }],
    ["for a name that only begins like here", { host: "localhost.evil.example" }],
    ["for an address that only begins like here", { host: "127.0.0.1.evil.example" }],
    ["for a user's name like here", { host: "127.0.0.1@evil.example" }],
    ["for another address", { host: "192.0.2.1:8080" }],
    ["for a key that was never set", { "x-server-key": "", via: "1.1 proxy" }],
  ])("nothing is read %s", async (_what, headers) => {
    const text = "set SERVER_KEYS to use this route from elsewhere";
    expect(await refusalOf(list(headers))).toEqual([403, text]);
    expect(paths.length).toBeGreaterThanOrEqual(5);
    for (const path of paths) expect((await app.fetch(path, { headers })).status).toBe(403);
  });

  test.each<[string, boolean]>([
    ["127.0.0.1", true],
    ["127.255.255.254", true],
    ["::1", true],
    ["::ffff:127.0.0.1", true],
    ["192.0.2.1", false],
    ["10.0.0.1", false],
    ["::ffff:192.0.2.1", false],
    ["fe80::1", false],
    ["0.0.0.0", false],
    ["", false],
  ])("a peer at %p is local: %p", (address, isLocal) => {
    const clients = new Clients(["127.0.0.0/8", "10.0.0.0/8"]);
    clients.attach({ requestIP: () => ({ address }), upgrade: () => false });
    const request = new Request("http://localhost/v1/sessions", { headers: { host: "localhost" } });
    const check = () => new ServerKeys([], clients).check(request);
    if (isLocal) expect(check).not.toThrow();
    else expect(check).toThrow("set SERVER_KEYS");
  });
});
