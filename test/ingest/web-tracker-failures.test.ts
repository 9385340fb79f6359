import { afterAll, beforeAll, expect, test } from "bun:test";
import { type Browser, type Page } from "playwright-core";
import { Type } from "typebox";
import { Value } from "typebox/value";

import { TestApp } from "../support/app.ts";
import { openBrowser } from "../support/browser.ts";
import { eventually } from "../support/eventually.ts";
import { FaultyObjects, fails, succeeds } from "../support/faulty-objects.ts";
import { forgeToken, inflate } from "../support/ingest-proxy.ts";
import { aProject } from "../support/projects.ts";
import { type Recorded, documentOf, fieldsOf, recordedMessages } from "../support/recorded-page.ts";
import { Site } from "../support/site.ts";
import {
  isActive,
  openTracked,
  recordedSoFar,
  recordedWith,
  sessionOf,
  textIn,
  treeOf,
} from "../support/tracked-page.ts";

const SETUP_MS_MAX = 180_000;
const SESSION_MS = 2 * 3_600_000;
const Refused = Type.Object({ success: Type.Literal(false), reason: Type.String() });

let browser: Browser;
/** Server whose clock can be put forward. */
let app: TestApp;
let projectKey: string;
let clockAheadMs = 0;

beforeAll(async () => {
  const clock = {
    epochMs: () => Date.now() + clockAheadMs,
    elapsedMs: () => performance.now(),
  };
  [browser, app] = await Promise.all([openBrowser(), TestApp.start({ clock })]);
  ({ projectKey } = await aProject(app, { platform: "web" }));
}, SETUP_MS_MAX);

afterAll(async () => {
  await browser.close();
  await app[Symbol.asyncDispose]();
});

/** Opens a page that sends to another origin, so that it reads only what CORS allows. */
async function recordedPage(
  server: TestApp,
  site: Site,
): Promise<{ page: Page; sessionID: string }> {
  const page = await openTracked(await browser.newContext(), `${site.url}/next`);
  await recordedSoFar(server, page);
  return { page, sessionID: await sessionOf(page) };
}

/** Returns the items that were ever added to the list, each as often as it was recorded. */
function items(messages: Recorded[]): unknown[] {
  return fieldsOf(messages, "SetNodeData")
    .map(({ data }) => data)
    .filter((data) => String(data).startsWith("item "));
}

test("a batch that is answered 401 is lost, and the whole page is sent anew in its session", async () => {
  await using site = await Site.open(app, { projectKey });
  const { page, sessionID } = await recordedPage(app, site);
  site.ingest.spoilBatches(1, forgeToken);
  await page.evaluate("addItem('item 1')");
  await page.evaluate("mark('refused')");
  await site.ingest.batchesWith(401, 1);
  await eventually("a second start", () => site.ingest.posts("web/start").length === 2);
  await eventually("the page is recorded again", async () => await isActive(page));
  await page.evaluate("addItem('item 2')");

  const messages = await recordedSoFar(app, page);
  expect(await textIn(page, "tracker.getSessionID()")).toBe(sessionID);
  const documents = messages.filter(({ name }) => name === "CreateDocument");
  expect(documents.map(({ pageNo }) => pageNo)).toEqual([0, 1]);
  expect(fieldsOf(messages, "CustomEvent")).not.toContainEqual({
    name: "mark",
    payload: "refused",
  });
  expect(items(messages)).toEqual(["item 1", "item 2"]);
  expect(documentOf(messages)).toBe(await treeOf(page));
});

/** Has batches refused while the page sends one, until it has been refused three times. */
async function refused(
  server: TestApp,
  status: number,
  refuse: (site: Site) => void,
  stopRefusing?: () => void,
): Promise<void> {
  const project = await aProject(server, { platform: "web" });
  await using site = await Site.open(server, project);
  const { page, sessionID } = await recordedPage(server, site);
  const before = site.ingest.posts("web/i").length;
  const tries = () => site.ingest.posts("web/i").slice(before);
  const refusals = () => tries().filter((one) => one.status === status);
  refuse(site);
  await page.evaluate("addItem('item 1')");
  await page.evaluate("mark('refused')");
  await eventually("three refusals", () => refusals().length >= 3);
  stopRefusing?.();

  const messages = await recordedWith(server, sessionID, "refused");
  expect(items(messages)).toEqual(["item 1"]);
  expect(documentOf(messages)).toBe(await treeOf(page));
  expect([await isActive(page), site.ingest.posts("web/start").length]).toEqual([true, 1]);
  const [first] = refusals();
  const same = tries().filter(({ body }) => first?.body.equals(body));
  expect(same.at(-1)?.path).toEndWith(`_network:${status}`);
  expect(same.map((one) => one.status).join(" ")).toMatch(RegExp(`^(${status} ){3,}200$`));
}

test("a batch that is answered 413 three times is sent again, and nothing is lost or doubled", async () => {
  await refused(app, 413, (site) => site.ingest.spoilBatches(3, inflate));
});

test("a batch that is answered 503 three times is sent again, and nothing is lost or doubled", async () => {
  const objects = new FaultyObjects();
  await using failing = await TestApp.start({ wrapObjects: objects.wrap, commitDeadlineMs: 1000 });
  const fail = () => void (objects.otherwise = fails);
  await refused(failing, 503, fail, () => void (objects.otherwise = succeeds));
});

test("a batch of a token that has just expired is taken, and its page goes on in a new session", async () => {
  await using site = await Site.open(app, { projectKey });
  const { page, sessionID } = await recordedPage(app, site);
  clockAheadMs += SESSION_MS;
  await page.evaluate("addItem('item 1')");
  await page.evaluate("mark('expired')");
  await site.ingest.batchesWith(401, 1);
  await eventually("a second start", () => site.ingest.posts("web/start").length === 2);
  await eventually("the page is recorded again", async () => await isActive(page));
  await page.evaluate("addItem('item 2')");

  expect(items(await recordedMessages(app, { sessionID }))).toEqual(["item 1"]);
  const messages = await recordedSoFar(app, page);
  expect(await textIn(page, "tracker.getSessionID()")).not.toBe(sessionID);
  expect(documentOf(messages)).toBe(await treeOf(page));
});

test("a page whose start is refused reads why, and does not ask again", async () => {
  await using site = await Site.open(app, { projectKey: "nobody's" });
  const page = await (await browser.newContext()).newPage();
  await page.goto(site.url);
  const { reason } = Value.Parse(Refused, await page.evaluate("started"));
  expect(reason).toBe('Server error: 404. {"error":"project not found"}');
  expect([await isActive(page), site.ingest.posts("web/start").length]).toEqual([false, 1]);
});
