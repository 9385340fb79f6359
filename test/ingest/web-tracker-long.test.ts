import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { type Browser } from "playwright-core";

import { TestApp } from "../support/app.ts";
import { openBrowser } from "../support/browser.ts";
import { eventually } from "../support/eventually.ts";
import { inflate } from "../support/ingest-proxy.ts";
import { Nginx } from "../support/nginx.ts";
import { aProject } from "../support/projects.ts";
import { type Recorded, documentOf, fieldsOf, recordedMessages } from "../support/recorded-page.ts";
import { Site } from "../support/site.ts";
import { isActive, openTracked, sessionOf, treeOf, useShop } from "../support/tracked-page.ts";

const SETUP_MS_MAX = 180_000;
const TEST_MS_MAX = 90_000;
const VISIT_MS = 35_000;
/** The tracker sends what it has every 30 s. */
const TIMER_MS_MAX = 45_000;
/** Waits of 250 ms, 500 ms and so on between eleven tries. */
const GIVEN_UP_MS_MAX = 30_000;
const TRIES = 11;

describe.skipIf(process.env["TEST_LONG"] === undefined)("in the long run", () => {
  let app: TestApp;
  let browser: Browser;
  let projectKey: string;

  beforeAll(async () => {
    [app, browser] = await Promise.all([TestApp.start(), openBrowser()]);
    ({ projectKey } = await aProject(app, { platform: "web", recordCanvas: true, canvasFps: 4 }));
  }, SETUP_MS_MAX);

  afterAll(async () => {
    await browser.close();
    await app[Symbol.asyncDispose]();
  });

  test.each([
    ["another origin", false],
    ["its own origin", true],
  ] as const)(
    "a page that sends to %s is recorded for 35 s without being asked to send",
    async (_where, sameOrigin) => {
      await using site = await Site.open(app, {
        projectKey,
        ...(sameOrigin && { through: Nginx }),
      });
      const page = await openTracked(await browser.newContext(), site.url);
      const startedMs = performance.now();
      await useShop(page);
      const tree = await treeOf(page);
      const sessionID = await sessionOf(page);
      let messages: Recorded[] = [];
      const isAllThere = async () => {
        messages = await recordedMessages(app, { sessionID });
        // Analytics are sent last.
        return documentOf(messages) === tree && fieldsOf(messages, "JSException").length > 0;
      };
      await eventually("the batches of the timer", isAllThere, TIMER_MS_MAX);
      await Bun.sleep(Math.max(0, VISIT_MS - (performance.now() - startedMs)));

      const kinds = new Set(
        site.ingest.posts("web/i").map(({ headers }) => headers.get("datatype") ?? ""),
      );
      expect([...kinds].toSorted()).toEqual([
        "analytics",
        "assets",
        "devtools",
        "player",
        "visual",
      ]);
      for (const { method, path, status } of site.ingest.answered)
        expect([path, status]).toEqual([path, method === "OPTIONS" ? 204 : 200]);
      expect(await isActive(page)).toBe(true);
      expect(fieldsOf(messages, "ConsoleLog")).toEqual([
        { level: "log", value: "bought {items: 1}" },
      ]);
    },
    TEST_MS_MAX,
  );

  test(
    "a page whose batch is answered 413 for ever is not recorded any more after eleven tries",
    async () => {
      await using site = await Site.open(app, { projectKey });
      const page = await openTracked(await browser.newContext(), `${site.url}/next`);
      await site.ingest.batchesWith(200, 1);
      site.ingest.spoilBatches(Number.POSITIVE_INFINITY, inflate);
      await page.evaluate("mark('refused')");
      await eventually("the end", async () => !(await isActive(page)), GIVEN_UP_MS_MAX);
      const refused = site.ingest.posts("web/i").filter(({ status }) => status === 413);
      const tries = refused.filter(({ body }) => refused[0]?.body.equals(body));
      expect(tries).toHaveLength(TRIES);
    },
    TEST_MS_MAX,
  );
});
