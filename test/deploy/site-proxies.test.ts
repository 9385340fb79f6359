import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { type Browser } from "playwright-core";

import { TestApp } from "../support/app.ts";
import { openBrowser } from "../support/browser.ts";
import { Caddy } from "../support/caddy.ts";
import { eventually } from "../support/eventually.ts";
import { Nginx } from "../support/nginx.ts";
import { claim } from "../support/presence.ts";
import { aProject } from "../support/projects.ts";
import { type ProxyProcess } from "../support/proxy-process.ts";
import { RawConnection } from "../support/raw-connection.ts";
import { documentOf, fieldsOf } from "../support/recorded-page.ts";
import { Site } from "../support/site.ts";
import { openTracked, recordedSoFar, sessionOf, treeOf } from "../support/tracked-page.ts";

// apt installs what is missing.
const SETUP_MS_MAX = 180_000;
/** A busy machine may end a page before the tracker's worker runs. */
const LEAVES_MAX = 10;
const TRACKER_PATHS = /^\/ingest\/v1\/(web\/(start|i|images|tags|conditions\/\d+)|sdk\/(start|i))$/;
const ABORTED = 200;
const BODY = "a batch".repeat(1000);
/** Paths that are others to Floodgate than to a proxy, or that no tracker asks for. */
const ODD = [
  "/metrics",
  "/ingest/metrics",
  "/ingest/presence",
  "/ingest/v1/ios/start",
  "/ingest/v1/web/",
  "/ingest/v1/web/i/",
  "/ingest/v1/web/nowhere",
  "/ingest/v1/web/i\\..\\..\\..\\..\\presence",
  "/ingest/v1/web/..\\..\\..\\presence",
  "/ingest/v1/web/%2e%2e/%2e%2e/%2e%2e/presence",
  "/ingest/v1/web/../../../presence",
  "/ingest/v1/web/..%5c..%5c..%5cpresence",
  "/presence%2f..%2fingest/v1/web/i",
  "/presence/..%2fingest/v1/web/i",
  "/subscribe/ann/client/x%2f..%2f..%2f..%2f..%2fingest%2fv1%2fweb%2fi",
  "/presence\\x/../../ingest/v1/web/i",
  "/x%5c..%5cpresence/../../ingest/v1/web/i",
];

let app: TestApp;
let browser: Browser;
let projectKey: string;

beforeAll(async () => {
  [app, browser] = await Promise.all([TestApp.start(), openBrowser()]);
  ({ projectKey } = await aProject(app, { platform: "web" }));
}, SETUP_MS_MAX);

afterAll(async () => {
  await browser.close();
  await app[Symbol.asyncDispose]();
});

describe.each([
  ["nginx", Nginx],
  ["Caddy", Caddy],
] as const)("a site behind %s with what docs/websites.md adds to that", (_name, through) => {
  test("is recorded, and what happens last on a page that is left, too", async () => {
    await using site = await Site.open(app, { projectKey, through });
    const page = await openTracked(await browser.newContext(), `${site.url}/next`);
    const sessionID = await sessionOf(page);
    let messages = await recordedSoFar(app, page);
    expect(documentOf(messages)).toBe(await treeOf(page));

    const hasLast = () => fieldsOf(messages, "SetNodeData").some(({ data }) => data === "last");
    for (let leaves = 0; leaves < LEAVES_MAX && !hasLast(); leaves++) {
      await page.evaluate("addItem('last')");
      await page.evaluate("tick()");
      await page.click("#link");
      await page.waitForURL("**/next?again");
      expect(await sessionOf(page)).toBe(sessionID);
      messages = await recordedSoFar(app, page);
    }
    expect(hasLast()).toBe(true);
  });

  describe("passes on", () => {
    const passed: { path: string; headers: Headers }[] = [];
    const bodies: string[] = [];
    const floodgate = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: async (request) => {
        const { url, headers } = request;
        passed.push({ path: url.slice(new URL(url).origin.length), headers: new Headers(headers) });
        bodies.push(await request.text());
        return new Response("Floodgate");
      },
    });
    const own = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: () => new Response("the site"),
    });
    let proxy: ProxyProcess;

    beforeAll(async () => {
      proxy = await through.site({ site: own.url.origin, floodgate: floodgate.url.origin });
    }, SETUP_MS_MAX);

    afterAll(async () => {
      await proxy[Symbol.asyncDispose]();
      await Promise.all([floodgate.stop(true), own.stop(true)]);
    });

    async function ask(path: string): Promise<string> {
      using client = await RawConnection.open(proxy.url);
      client.head(`GET ${path}`, { ...claim("eve"), cookie: "session=secret" });
      return (await client.response()).body.toString();
    }

    test.each([
      "web/start",
      "web/i?batch=0_1_2_kyes&split=3",
      "web/images",
      "web/tags",
      "web/conditions/12",
      "sdk/start",
      "sdk/i",
    ])(
      "/ingest/v1/%s unchanged, with the client's address, but no cookie and no claim",
      async (route) => {
        expect(await ask(`/ingest/v1/${route}`)).toBe("Floodgate");
        const { path, headers } = passed.at(-1) ?? {};
        expect(path).toBe(`/ingest/v1/${route}`);
        const names = ["x-forwarded-for", "cookie", "x-user-claim"];
        expect(names.map((name) => headers?.get(name))).toEqual(["127.0.0.1", null, null]);
      },
    );

    test("what the browser gives up once it is sent", async () => {
      bodies.length = 0;
      for (let nth = 0; nth < ABORTED; nth++) {
        using client = await RawConnection.open(proxy.url);
        client.head("POST /ingest/v1/web/i?batch=0_1_2_kyes", { "content-length": BODY.length });
        client.write(BODY);
        client.end();
        await client.closed();
      }
      await eventually("all bodies", () => bodies.length === ABORTED);
      expect(new Set(bodies)).toEqual(new Set([BODY]));
    });

    test.each(ODD)("nothing else for %j", async (path) => {
      passed.length = 0;
      await ask(path);
      expect(passed.filter((one) => !TRACKER_PATHS.test(one.path))).toEqual([]);
    });
  });
});
