import { describe, expect, test } from "bun:test";

import { type Audience } from "../../../src/platform/http/policy.ts";
import { objectOf, refusalOf } from "../../support/answers.ts";
import { FORMAT, MadeUpRoutes, ORIGIN } from "../../support/made-up-routes.ts";
import { Scrape } from "../../support/scrape.ts";

const EXPECTED: {
  audience: Audience;
  origins: "*" | typeof ORIGIN;
  /** A request header that pages may send. */
  header: string;
  isOpen: boolean;
  isKeyed?: boolean;
  credential?: string;
}[] = [
  { audience: "sdk", origins: "*", header: "x-openreplay-batch", isOpen: true },
  { audience: "app", origins: "*", header: "content-type", isOpen: true },
  {
    audience: "backend",
    origins: ORIGIN,
    header: "x-server-key",
    isOpen: false,
    isKeyed: true,
    credential: "serverKey",
  },
  {
    audience: "publisher",
    origins: ORIGIN,
    header: "signature",
    isOpen: true,
    credential: "signature",
  },
  { audience: "operator", origins: ORIGIN, header: "range", isOpen: false },
];

const ACKNOWLEDGED = 'floodgate_acknowledgement_duration_seconds_count{kind="batch"}';

async function statuses(routes: MadeUpRoutes, many: number): Promise<number[]> {
  const all: number[] = [];
  for (let i = 0; i < many; i++) all.push((await routes.fetch("/made/up")).status);
  return all;
}

async function acknowledged({ metrics }: MadeUpRoutes): Promise<number> {
  return new Scrape(await metrics.registry.metrics()).value(ACKNOWLEDGED);
}

describe.each(EXPECTED)("a route that is mounted for $audience", (expected) => {
  const { audience, origins, header, isOpen, isKeyed = false, credential } = expected;

  test("answers preflights with its origins and headers", async () => {
    await using routes = new MadeUpRoutes({ audience });
    const asking = { origin: ORIGIN, "access-control-request-method": "POST" };
    const answer = await routes.fetch("/made/up", "OPTIONS", asking);
    expect(answer.status).toBe(204);
    expect(answer.headers.get("access-control-allow-origin")).toBe(origins);
    const allowed = answer.headers.get("access-control-allow-headers")?.split(", ");
    for (const name of ["x-made", header]) expect(allowed).toContain(name);
  });

  test("is readable by pages that may call it, whatever it answers", async () => {
    await using routes = new MadeUpRoutes({ audience });
    for (const path of ["/made/up", "/made/up/1", "/made/up/1/2/3"])
      for (const [origin, allowed] of [
        [ORIGIN, origins],
        ["https://other.example", origins === "*" ? "*" : null],
      ] as const) {
        const { headers } = await routes.fetch(path, "GET", { origin });
        expect(headers.get("access-control-allow-origin")).toBe(allowed);
      }
  });

  test("renders what it throws, what Elysia refuses and what the edge refuses in its format", async () => {
    await using routes = new MadeUpRoutes({ audience });
    for (const [method, path, status, text] of [
      ["GET", "/made/up/1", 409, "made up: conflict"],
      ["GET", "/made/up/fault", 500, "made up: internal"],
      ["GET", "/made/up/1/checked?n=x", 400, "made up: invalid"],
      ["PUT", "/made/up", 405, "made up: method_not_allowed"],
      ["GET", "/made/up/1/2/3", 404, "made up: no_route"],
      ["GET", "/made/nowhere", 404, "made up: no_route"],
    ] as const) {
      const answer = await routes.fetch(path, method);
      expect(answer.headers.get("content-type")).toBe(FORMAT);
      expect([path, answer.status, await answer.text()]).toEqual([path, status, text]);
    }
    const elsewhere = routes.fetch("/madeup/1");
    expect(await refusalOf(elsewhere)).toEqual([404, "no such route"]);
  });

  test("asks for a server key before anything else, if that is what its callers have", async () => {
    await using routes = new MadeUpRoutes({ audience, keyRefusal: "no" });
    const answer = await routes.fetch("/made/up/1/checked?n=x", "GET", {});
    expect(await answer.text()).toBe(`made up: ${isKeyed ? "forbidden" : "invalid"}`);
  });

  test("is limited if anybody can call it", async () => {
    await using rated = new MadeUpRoutes({ audience }, { ratePerSecond: 1 });
    expect((await statuses(rated, 15)).includes(429)).toBe(isOpen);
    await using full = new MadeUpRoutes({ audience }, { requestsMax: 0 });
    expect(await statuses(full, 1)).toEqual([isOpen ? 503 : 200]);
  });

  test("is logged without a limit if only the owner of a key can call it", async () => {
    await using routes = new MadeUpRoutes({ audience });
    const startedMs = performance.now();
    await statuses(routes, 300);
    const seconds = Math.ceil((performance.now() - startedMs) / 1000) + 1;
    const lines = routes.lines.filter(({ msg }) => msg === "request").length;
    expect(lines).toBeGreaterThan(0);
    if (isKeyed) expect(lines).toBe(300);
    else expect(lines).toBeLessThanOrEqual(20 * seconds);
  });

  test("is documented under its tag, with its key", async () => {
    await using routes = new MadeUpRoutes({ audience });
    const { paths } = await objectOf(routes.fetch("/docs/json"));
    expect(paths).toMatchObject({
      "/made/up": {
        get: {
          tags: ["Made up"],
          security: credential === undefined ? [] : [{ [credential]: [] }],
          "x-policy": [{ audience }],
        },
      },
    });
  });
});

test("a route answers HEAD as GET, and is found with slashes too many", async () => {
  await using routes = new MadeUpRoutes({ audience: "app" });
  for (const path of ["/made/up", "/made/up/", "//made//up", "/ingest/made/up/"]) {
    const head = await routes.fetch(path, "HEAD");
    expect([head.status, head.headers.get("content-length")]).toEqual([200, "4"]);
    expect(await (await routes.fetch(path)).text()).toBe("made");
  }
});

test("a route whose path is exact has no other slash at its end, and no HEAD", async () => {
  await using routes = new MadeUpRoutes({ audience: "app", exactPath: true });
  expect((await routes.fetch("//made//up")).status).toBe(200);
  expect((await routes.fetch("/made/up/")).status).toBe(404);
  const head = await routes.fetch("/made/up", "HEAD");
  expect([head.status, head.headers.get("allow")]).toEqual([405, "GET, POST, OPTIONS"]);
});

test("the latency of a 200 is observed where it acknowledges data", async () => {
  await using routes = new MadeUpRoutes({ audience: "sdk", acknowledges: "batch" });
  await routes.fetch("/made/up", "POST");
  await routes.fetch("/made/up/1");
  await routes.fetch("/made/nowhere");
  expect(await acknowledged(routes)).toBe(1);
  await using silent = new MadeUpRoutes({ audience: "sdk" });
  await silent.fetch("/made/up", "POST");
  expect(await acknowledged(silent)).toBeNaN();
});
