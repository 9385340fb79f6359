import { beforeAll, describe, expect, test } from "bun:test";
import { Type } from "typebox";
import { Value } from "typebox/value";

import { objectOf, refusalOf } from "../../support/answers.ts";
import { TestApp } from "../../support/app.ts";

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
  const app = TestApp.forTests({ env: { SERVER_KEYS: "alpha, beta-2" } });
  let paths: string[];

  beforeAll(async () => {
    paths = await managementPaths(app);
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
  const app = TestApp.forTests({ env: { SERVER_KEYS: "" } });
  let paths: string[];

  beforeAll(async () => {
    paths = await managementPaths(app);
  });

  test.each<[string, (port: string) => Record<string, string>]>([
    ["with nothing", () => ({})],
    ["under the name localhost", (port) => ({ host: `localhost:${port}` })],
    ["under an address of this machine", (port) => ({ host: `127.0.0.1:${port}` })],
    [
      "from its own pages",
      (port) => ({ host: `localhost:${port}`, origin: `http://localhost:${port}` }),
    ],
    ["for a trusted proxy", () => ({ "x-forwarded-for": "127.0.0.1" })],
    ["with an empty key", () => ({ "x-server-key": "" })],
    ["with a key that was never set", () => ({ "x-server-key": "undefined" })],
  ])("nobody may manage, also not a caller on this machine: %s", async (_how, headersOf) => {
    const headers = headersOf(new URL(app.url).port);
    expect(paths.length).toBeGreaterThanOrEqual(5);
    for (const path of [...paths, `/v1/sessions?projectId=${app.project.id}`])
      expect(await refusalOf(app.fetch(path, { headers }))).toEqual([
        403,
        "no server key is configured: set SERVER_KEYS",
      ]);
    const minting = app.post("/presence/tokens", '{"userid":"ann"}', headers);
    expect((await refusalOf(minting))[0]).toBe(403);
    for (const path of ["/devices/d1", "/notifications"])
      expect((await app.fetch(path, { headers })).status).toBe(403);
  });
});
