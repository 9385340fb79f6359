import { afterAll, beforeAll, describe, expect, test } from "bun:test";

import { type Browser } from "playwright-core";

import { TestApp } from "../support/app.ts";
import { openBrowser } from "../support/browser.ts";
import { MULTIPART, encodeForm } from "../support/forms.ts";
import { UpdateApi, aSignature, formParts } from "../support/updates.ts";

const ADMIN = "https://admin.example";
const WEBVIEWS = ["https://localhost", "capacitor://localhost", "ionic://localhost", "null"];
const BUILD = { version: "2267_01", name: "My App 1.0.apk" };

const app = TestApp.forTests({ env: { CORS_ORIGINS: `${ADMIN}/`, RATE_LIMIT_ADDRESS: "1000" } });
const api = UpdateApi.forTests(app);
let client: string;

beforeAll(async () => {
  client = await aSignature(app, "client");
  await api.published(BUILD);
});

/** A route, the request headers of its callers, and what a page may do with the response. */
type Call = { method: string; path: string; headers?: Record<string, string>; status: number };

const DOWNLOAD = "/source/arm64/2267_01/My%20App%201.0.apk";
const OF_APPS: Call[] = [
  { method: "GET", path: "/api/v1/updates/2263_05", headers: { "x-device-id": "d" }, status: 200 },
  { method: "GET", path: "/api/v1/updates/2263_05?device=%00", status: 400 },
  { method: "GET", path: "/api/v1/updates/2263_05x86", headers: { signature: "s" }, status: 200 },
  { method: "GET", path: "/api/v1/updates/2263_05arm", status: 404 },
  { method: "POST", path: "/api/v1/updates/2263_05", status: 405 },
  { method: "GET", path: DOWNLOAD, headers: { range: "bytes=0-3" }, status: 206 },
  { method: "GET", path: DOWNLOAD, headers: { range: "bytes=999-" }, status: 416 },
  { method: "GET", path: DOWNLOAD, headers: { "if-none-match": "*" }, status: 304 },
  { method: "GET", path: DOWNLOAD, headers: { "if-match": '"x"', "if-range": "x" }, status: 412 },
  { method: "HEAD", path: DOWNLOAD, headers: { "if-modified-since": "x" }, status: 200 },
  { method: "GET", path: "/source/nowhere.apk", status: 404 },
  { method: "GET", path: "/source/a/b/c/d", status: 404 },
  { method: "PUT", path: DOWNLOAD, status: 405 },
  { method: "POST", path: "/api/v1/users", headers: { signature: "unknown" }, status: 401 },
];
const OF_PUBLISHERS: Call[] = [
  { method: "GET", path: "/api/v1/updates", headers: { signature: "s" }, status: 401 },
  { method: "POST", path: "/api/v1/updates", headers: { signature: "s" }, status: 401 },
  { method: "PUT", path: "/api/v1/updates", status: 405 },
  { method: "PATCH", path: "/api/v1/updates/1", headers: { signature: "s" }, status: 401 },
  { method: "GET", path: "/api/v1/users", headers: { signature: "s" }, status: 401 },
];

function preflight({ method, path, headers = {} }: Call, origin: string): Promise<Response> {
  return app.fetch(path, {
    method: "OPTIONS",
    headers: {
      origin,
      "access-control-request-method": method,
      "access-control-request-headers": Object.keys(headers).join(","),
    },
  });
}

function call({ method, path, headers = {} }: Call, origin: string): Promise<Response> {
  return app.fetch(path, { method, headers: { ...headers, origin } });
}

function listOf(answer: Response, name: string): string[] {
  return answer.headers.get(`access-control-${name}`)?.toLowerCase().split(", ") ?? [];
}

describe.each(OF_APPS)("$method $path answers $status, which", (asked) => {
  test("every page and app may read", async () => {
    for (const origin of [...WEBVIEWS, ADMIN, "https://evil.example"]) {
      const answer = await call(asked, origin);
      expect([origin, answer.status]).toEqual([origin, asked.status]);
      expect(answer.headers.get("access-control-allow-origin")).toBe("*");
      expect(answer.headers.get("access-control-allow-credentials")).toBeNull();
      expect(listOf(answer, "expose-headers")).toEqual(
        expect.arrayContaining([
          "content-range",
          "accept-ranges",
          "etag",
          "content-length",
          "retry-after",
          "x-request-id",
          "x-build-sha256",
        ]),
      );
      await answer.body?.cancel();
    }
  });

  test("a preflight allows with its headers, if there is the route", async () => {
    for (const origin of WEBVIEWS) {
      const answer = await preflight(asked, origin);
      expect(answer.headers.get("access-control-allow-origin")).toBe("*");
      if (answer.status === 404) continue;
      expect(answer.status).toBe(204);
      expect(listOf(answer, "allow-headers")).toEqual(
        expect.arrayContaining([...Object.keys(asked.headers ?? {}), "content-type"]),
      );
    }
  });
});

describe.each(OF_PUBLISHERS)("$method $path answers $status, which", (asked) => {
  test("a page of a configured origin alone may read", async () => {
    for (const origin of [ADMIN, ...WEBVIEWS, `${ADMIN}.evil.example`]) {
      const answer = await call(asked, origin);
      expect([origin, answer.status]).toEqual([origin, asked.status]);
      const allowed = origin === ADMIN ? ADMIN : null;
      expect(answer.headers.get("access-control-allow-origin")).toBe(allowed);
      expect(answer.headers.get("vary")).toBe("origin");
      if (asked.status === 405) continue;
      const before = await preflight(asked, origin);
      expect(before.headers.get("access-control-allow-origin")).toBe(allowed);
      if (origin !== ADMIN) continue;
      expect(listOf(before, "allow-methods")).toContain(asked.method.toLowerCase());
      expect(listOf(before, "allow-headers")).toEqual(
        expect.arrayContaining(["content-type", "signature"]),
      );
    }
  });
});

test("CORS_ORIGINS=* opens every route to every page, without credentials", async () => {
  await using open = await TestApp.start({ env: { CORS_ORIGINS: "*", SERVER_KEYS: "k" } });
  for (const path of ["/v1/sessions", "/devices/x", "/api/v1/updates", "/nowhere"])
    for (const method of ["GET", "OPTIONS"]) {
      const answer = await open.fetch(path, { method, headers: { origin: "https://x.example" } });
      expect([path, answer.headers.get("access-control-allow-origin")]).toEqual([path, "*"]);
      expect(answer.headers.get("access-control-allow-credentials")).toBeNull();
    }
});

test("what is over a rate is told readably", async () => {
  await using slow = await TestApp.start({ env: { RATE_LIMIT_ADDRESS: "1" } });
  const path = "/api/v1/updates/2263_05";
  const ask = async () => await slow.fetch(path, { headers: { origin: "https://localhost" } });
  let answer = await ask();
  while (answer.status !== 429) answer = await ask();
  expect(answer.headers.get("access-control-allow-origin")).toBe("*");
  expect(listOf(answer, "expose-headers")).toContain("retry-after");
});

describe("a browser", () => {
  const site = Bun.serve({
    port: 0,
    fetch: ({ url }) =>
      new Response("<!doctype html>", {
        headers: {
          "content-type": "text/html",
          ...(url.endsWith("/sandboxed") && {
            "content-security-policy": "sandbox allow-scripts",
          }),
        },
      }),
  });
  const origin = `http://localhost:${site.port}`;
  /** Page with the origin `null`. */
  const sandboxed = `${origin}/sandboxed`;
  let browser: Browser;

  beforeAll(async () => {
    browser = await openBrowser();
  });

  afterAll(async () => {
    await browser.close();
    await site.stop(true);
  });

  /** Evaluates an expression in a page at that address. */
  async function inPage(address: string, expression: string): Promise<unknown> {
    const page = await browser.newPage();
    await page.goto(address);
    const value: unknown = await page.evaluate(expression);
    await page.close();
    return value;
  }

  test("looks for an update and goes on with its download, from any origin or none", async () => {
    const script = `(async () => {
      const check = await fetch(${JSON.stringify(app.url)} + "/api/v1/updates/2263_05", { headers: { "x-device-id": "d" } });
      const { URI, SHA256 } = await check.json();
      const headers = { range: "bytes=2-", "if-match": JSON.stringify(SHA256) };
      const rest = await fetch(URI, { headers });
      const changed = await fetch(URI, { headers: { "if-match": '"other"' } });
      return [await rest.text(), rest.headers.get("content-range"), rest.headers.get("etag"), changed.status, await changed.text()];
    })()`;
    const text = "a build of 2267_01";
    const { SHA256 } = await api.offered("2263_05");
    for (const address of [origin, sandboxed])
      expect(await inPage(address, script)).toEqual([
        text.slice(2),
        `bytes 2-${text.length - 1}/${text.length}`,
        `"${SHA256}"`,
        412,
        "the file is not the one that the request expects\n",
      ]);
  });

  test("publishes from a configured origin, and reports its user from any", async () => {
    await using own = await TestApp.start({ env: { CORS_ORIGINS: `${origin}/` } });
    const [service, user] = [await aSignature(own, "service"), await aSignature(own, "client")];
    const body = JSON.stringify([...encodeForm(formParts(BUILD))]);
    const script = `(async () => {
      const url = ${JSON.stringify(own.url)} + "/api/v1/";
      const headers = { ...${JSON.stringify(MULTIPART)}, signature: "${service}" };
      const body = new Uint8Array(${body});
      const published = await fetch(url + "updates", { method: "POST", headers, body });
      const change = { method: "PATCH", headers: { signature: "${service}" }, body: '{"rollout":20}' };
      const changed = await fetch(url + "updates/1", change);
      return [published.status, changed.status, (await changed.json()).Rollout];
    })().catch(String)`;
    expect(await inPage(origin, script)).toEqual([200, 200, 20]);
    expect(await inPage(sandboxed, script)).toBe("TypeError: Failed to fetch");
    const report = `fetch("${own.url}/api/v1/users", { method: "POST", headers: { signature: "${user}" }, body: "{}" }).then(({ status }) => status)`;
    expect(await inPage(sandboxed, report)).toBe(200);
  });
});

test("a page may report its user", async () => {
  const asked = { method: "POST", path: "/api/v1/users", headers: { signature: client } };
  const answer = await app.fetch(asked.path, {
    ...asked,
    body: "{}",
    headers: { ...asked.headers, origin: "null" },
  });
  expect(answer.status).toBe(200);
  expect(answer.headers.get("access-control-allow-origin")).toBe("*");
});
