import { beforeAll, describe, expect, test } from "bun:test";

import { Tokens } from "../../../src/sessions/token.ts";
import { TestApp, type TestSession } from "../../support/app.ts";
import { aBatch } from "../../support/batches.ts";
import { FaultyObjects, fails } from "../../support/faulty-objects.ts";
import { aFile, upload } from "../../support/images.ts";

const ADMIN = "https://admin.example";
const ORIGIN = { origin: "https://app.example" };
const SDK_PATHS = ["start", "append", "i", "late", "images"].map((name) => `/v1/ios/${name}`);
const MOBILE_PATHS = ["start", "i", "late", "images"].map((name) => `/v1/mobile/${name}`);
const WEB_PATHS = [
  "/v1/web/start",
  "/v1/web/tags",
  "/v1/web/conditions/1",
  "/v1/web/i?batch=0_1_4361_kyes&split=3721",
  "/v1/web/images",
  "/v1/web/not-started",
  "/v1/web/feature-flags",
  "/v1/web/uxt/signals/task",
  "/v1/sdk/start",
  "/v1/sdk/i",
];
const SDK_HEADERS = [
  "content-type",
  "authorization",
  "content-encoding",
  "datatype",
  "x-openreplay-batch",
];
const WEB_START = { trackerVersion: "19.0.1" };
const NO_PROJECT = { ...WEB_START, projectKey: "none", projectID: undefined };
const LONG = " ".repeat(131_073);
const READING = ["/v1/sessions", "/v1/sessions/1", "/v1/sessions/1/batches", "/v1/images/1/a"];

const app = TestApp.forTests({
  env: { CORS_ORIGINS: `${ADMIN}, https://b.example:8443`, SERVER_KEYS: "k" },
});
let session: TestSession;

beforeAll(async () => {
  session = await app.aSession();
});

function expectOpen(answer: Response, status: number): void {
  expect(answer.status).toBe(status);
  expect(answer.headers.get("access-control-allow-origin")).toBe("*");
  expect(answer.headers.get("access-control-allow-credentials")).toBe(null);
}

function append(body: Uint8Array, token = session.token, path = "/v1/ios/append") {
  return app.append({ token, sessionID: "" }, body, path, ORIGIN);
}

describe("every kind of answer on SDK routes is readable from any origin", () => {
  test.each<[number, string, () => Promise<Response>]>([
    [200, "a start", () => app.start({}, "/v1/mobile/start", ORIGIN)],
    [200, "a batch", () => append(aBatch())],
    [200, "an image", () => upload(app, session, [aFile("cors")], { headers: ORIGIN })],
    [400, "an empty batch", () => append(new Uint8Array())],
    [400, "bad JSON", () => app.post("/v1/ios/start", "{", ORIGIN)],
    [401, "a missing token", () => app.post("/v1/ios/i", "x", ORIGIN)],
    [401, "a forged token", () => append(aBatch(), "a.b.c.d")],
    [403, "no project", () => app.post("/v1/ios/start", "{}", ORIGIN)],
    [404, "an unknown project", () => app.start({ projectKey: "none" }, "/v1/ios/start", ORIGIN)],
    [404, "an unknown path", () => app.post("/v1/ios/nowhere", "", ORIGIN)],
    [404, "a path that is not built", () => app.post("/v1/web/nowhere", "", ORIGIN)],
    [400, "a web start of bad JSON", () => app.post("/v1/web/start", "{", ORIGIN)],
    [401, "a web batch", () => append(aBatch(), "a.b.c.d", "/v1/web/i?batch=0_1_2_kyes")],
    [404, "a web start of no project", () => app.start(NO_PROJECT, "/v1/web/start", ORIGIN)],
    [413, "a web batch", () => append(new Uint8Array(2_000_000), session.token, "/v1/web/i")],
    [401, "tags without a token", () => app.fetch("/v1/web/tags", { headers: ORIGIN })],
    [403, "a web start of an app", () => app.start(WEB_START, "/v1/web/start", ORIGIN)],
    [413, "a web start over the limit", () => app.post("/v1/web/start", LONG, ORIGIN)],
    [426, "an old web tracker", () => app.post("/v1/web/start", "{}", ORIGIN)],
    [200, "an old tracker that did not start", () => app.post("/v1/web/not-started", "", ORIGIN)],
    [405, "a wrong method", () => app.fetch("/v1/ios/start", { headers: ORIGIN })],
    [413, "a batch over the limit", () => append(new Uint8Array(2_000_000))],
    [415, "a form that is none", () => append(aBatch(), session.token, "/v1/ios/images")],
    [
      422,
      "a project that is undecodable",
      () => app.start({ projectID: 1 }, "/v1/ios/start", ORIGIN),
    ],
    [426, "an old SDK", () => app.start({ trackerVersion: "1" }, "/v1/mobile/start", ORIGIN)],
  ])("%d for %s", async (status, _what, ask) => {
    expectOpen(await ask(), status);
  });

  test("also under /ingest and with doubled slashes", async () => {
    expectOpen(await app.post("/ingest//v1/ios/start", "{", ORIGIN), 400);
    expectOpen(await app.post("//ingest/v1//mobile/nowhere", "", ORIGIN), 404);
  });

  test("503 while the store fails", async () => {
    const faulty = new FaultyObjects();
    faulty.otherwise = fails;
    await using own = await TestApp.start({ commitDeadlineMs: 300, wrapObjects: faulty.wrap });
    expectOpen(await own.start(), 503);
  });

  test("500 for a fault of ours", async () => {
    await using own = await TestApp.start();
    await own.sql`alter table sessions rename to sessions_away`;
    const expiresAt = Date.now() + 60_000;
    const token = new Tokens(["test-secret"]).sign({ sessionId: 1n, delay: 0, expiresAt });
    const answer = await own.append({ token, sessionID: "1" }, aBatch());
    expectOpen(answer, 500);
    expect(await answer.json()).toEqual({ error: "internal error" });
  });
});

describe.each([
  ...SDK_PATHS,
  ...MOBILE_PATHS,
  ...WEB_PATHS,
  "/ingest/v1/web/start",
  "/ingest/v1/ios/i",
  "//v1/mobile/late",
])("a preflight of %s", (path) => {
  test("allows what web trackers send, from anywhere, for a day", async () => {
    const answer = await app.fetch(path, {
      method: "OPTIONS",
      headers: {
        ...ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-encoding, datatype",
      },
    });
    expectOpen(answer, 204);
    expect(await answer.text()).toBe("");
    const list = (name: string) => answer.headers.get(name)?.toLowerCase().split(/, ?/) ?? [];
    expect(list("access-control-allow-methods")).toEqual(
      expect.arrayContaining(["get", "post", "options"]),
    );
    expect(list("access-control-allow-headers")).toEqual(expect.arrayContaining(SDK_HEADERS));
    expect(answer.headers.get("access-control-max-age")).toBe("86400");
  });
});

test("a preflight is answered whatever the query is", async () => {
  for (const path of ["/v1/web/start", "/v1/web/images", "/ingest//v1/web/tags"])
    for (const query of [
      "?",
      "?batch=0_1_4361_kyes&split=3721",
      "?batch=%ff&batch",
      "?a=/b/../c",
    ]) {
      const headers = { ...ORIGIN, "access-control-request-method": "POST" };
      expectOpen(await app.fetch(path + query, { method: "OPTIONS", headers }), 204);
    }
});

test("a preflight of an SDK path that does not exist says so, readably", async () => {
  expectOpen(await app.fetch("/v1/ios/nowhere", { method: "OPTIONS", headers: ORIGIN }), 404);
});

describe("management routes", () => {
  test.each([ADMIN, "https://b.example:8443"])("are readable from %s", async (origin) => {
    for (const path of READING) {
      const headers = { origin, "x-server-key": "k" };
      for (const answer of [
        await app.fetch(path, { headers: { origin } }),
        await app.fetch(path, { headers }),
        await app.fetch(path, { method: "OPTIONS", headers: { origin } }),
        await app.fetch(path, { method: "DELETE", headers }),
      ]) {
        expect(answer.headers.get("access-control-allow-origin")).toBe(origin);
        expect(answer.headers.get("access-control-allow-credentials")).toBe(null);
        expect(answer.headers.get("vary")?.toLowerCase()).toContain("origin");
        await answer.body?.cancel();
      }
    }
  });

  test("let a page send the server key and a range, and read what a range answers", async () => {
    const path = `/v1/images/${app.project.id}/cors`;
    const preflight = await app.fetch(path, { method: "OPTIONS", headers: { origin: ADMIN } });
    expect(preflight.headers.get("access-control-allow-headers")).toContain("x-server-key");
    expect(preflight.headers.get("access-control-allow-headers")).toContain("range");
    const answer = await app.fetch(path, {
      headers: { origin: ADMIN, "x-server-key": "k", range: "bytes=0-1" },
    });
    expect(answer.status).toBe(206);
    const exposed = answer.headers.get("access-control-expose-headers") ?? "";
    for (const name of ["content-range", "etag"]) expect(exposed).toContain(name);
  });

  test.each(["https://evil.example", "http://admin.example", `${ADMIN}.evil.example`, "null"])(
    "are not readable from %s",
    async (origin) => {
      for (const path of READING) {
        const asked = [{ method: "GET" }, { method: "OPTIONS" }, { method: "PUT" }];
        for (const { method } of asked) {
          const answer = await app.fetch(path, {
            method,
            headers: { origin, "x-server-key": "k" },
          });
          expect(answer.headers.get("access-control-allow-origin")).toBe(null);
          await answer.body?.cancel();
        }
      }
    },
  );

  test("say nothing of origins to who names none", async () => {
    const answer = await app.fetch("/v1/sessions", { headers: { "x-server-key": "k" } });
    expect(answer.headers.get("access-control-allow-origin")).toBe(null);
  });
});
