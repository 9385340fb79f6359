import { beforeAll, describe, expect, test } from "bun:test";
import { type BrowserContext, type Page } from "playwright-core";

import { sessionRow } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { openBrowser } from "../support/browser.ts";
import { eventually } from "../support/eventually.ts";
import { imageList, imageOf } from "../support/images.ts";
import { type IngestProxy } from "../support/ingest-proxy.ts";
import { Nginx } from "../support/nginx.ts";
import { type TestProject, aProject } from "../support/projects.ts";
import { type Recorded, documentOf, fieldsOf, nodeOf } from "../support/recorded-page.ts";
import { Site } from "../support/site.ts";
import {
  isActive,
  openTracked,
  recordedSoFar,
  sessionOf,
  textIn,
  treeOf,
  useShop,
} from "../support/tracked-page.ts";

const SETUP_MS_MAX = 180_000;
/** Two uploads of ten images: 5 s. */
const CANVAS_FPS = 4;
const UPLOADS = 2;
const IMAGES = 10;
const FRAME_HEAD_BYTES = 12;
const UPLOADED_MS_MAX = 30_000;

/** A page when it was left, and everything that its session had by then. */
type Seen = { tab: string; tree: string; isActive: boolean; messages: Recorded[] };
type Visit = {
  url: string;
  ingest: IngestProxy;
  sessionIDs: Set<string>;
  sessionURL: string;
  shop: Seen;
  next: Seen;
  reloaded: Seen;
  secondTab: Seen;
};

const app = TestApp.forTests();
const visits = new Map<boolean, Visit>();
let project: TestProject;

beforeAll(async () => {
  project = await aProject(app, { platform: "web", recordCanvas: true, canvasFps: CANVAS_FPS });
  await using browser = await openBrowser();
  const visited = async (sameOrigin: boolean) =>
    visits.set(sameOrigin, await visit(await browser.newContext(), sameOrigin));
  await Promise.all([visited(false), visited(true)]);
}, SETUP_MS_MAX);

async function visit(context: BrowserContext, sameOrigin: boolean): Promise<Visit> {
  await using site = await Site.open(app, {
    projectKey: project.projectKey,
    tracker: { analytics: { active: true } },
    ...(sameOrigin && { through: Nginx }),
  });
  const page = await openTracked(context, site.url);
  const sessionIDs = new Set([await sessionOf(page)]);

  await useShop(page);
  await page.evaluate("tracker.track('ordered', { items: 1 }, { send_immediately: true })");
  const areThere = () =>
    site.ingest.posts("web/images").length >= UPLOADS && site.ingest.posts("sdk/i").length > 0;
  await eventually("canvas images and an event", areThere, UPLOADED_MS_MAX);
  const sessionURL = await textIn(page, "tracker.getSessionURL()");
  const shop = await seen(page);

  await page.click("#link");
  await page.waitForURL("**/next");
  sessionIDs.add(await sessionOf(page));
  const next = await seen(page);

  await page.reload();
  sessionIDs.add(await sessionOf(page));
  await page.evaluate("addItem('after the reload')");
  const reloaded = await seen(page);

  const tab = await openTracked(context, `${site.url}/next?second`);
  sessionIDs.add(await sessionOf(tab));
  await tab.evaluate("addItem('in the second tab')");
  const secondTab = await seen(tab);

  const { url, ingest } = site;
  return { url, ingest, sessionIDs, sessionURL, shop, next, reloaded, secondTab };
}

async function seen(page: Page): Promise<Seen> {
  const messages = await recordedSoFar(app, page);
  const [tab, tree] = [await textIn(page, "tracker.getTabId()"), await treeOf(page)];
  return { tab, tree, isActive: await isActive(page), messages };
}

describe.each([
  ["to another origin", false],
  ["to their own, through nginx", true],
] as const)("pages that send %s", (_what, sameOrigin) => {
  const visited = (): Visit => {
    const found = visits.get(sameOrigin);
    if (found === undefined) throw new Error("not visited");
    return found;
  };

  test("have every request answered 200, and are still recorded when they are left", () => {
    const { ingest, shop, next, reloaded, secondTab } = visited();
    const answers = new Set(ingest.answered.map(({ method, status }) => `${method} ${status}`));
    const preflights = sameOrigin ? [] : ["OPTIONS 204"];
    expect([...answers].toSorted()).toEqual(["GET 200", ...preflights, "POST 200"]);
    expect(ingest.posts("web/start")).toHaveLength(4);
    for (const { isActive: active } of [shop, next, reloaded, secondTab]) expect(active).toBe(true);
  });

  test("send what they say in batches of all kinds, the whole page first", () => {
    const { ingest, shop } = visited();
    const kinds = ingest.posts("web/i").map(({ headers }) => headers.get("datatype"));
    expect(kinds[0]).toBe("visual");
    expect(new Set(kinds)).toEqual(
      new Set(["visual", "player", "assets", "devtools", "analytics"]),
    );
    expect(new Set(shop.messages.map(({ kind }) => kind))).toEqual(
      new Set(["player", "assets", "devtools", "analytics"]),
    );
  });

  test("are rebuilt from their messages as they were, with frames and shadow roots", () => {
    const { shop, next, reloaded, secondTab } = visited();
    for (const { tree, tab, messages } of [shop, next, reloaded, secondTab])
      expect(documentOf(messages.filter((one) => one.tab === tab))).toBe(tree);
    for (const text of ["edited inside", "edited within", "added"])
      expect(shop.tree).toContain(text);
    expect(reloaded.tree).toContain("after the reload");
    expect(secondTab.tree).toContain("in the second tab");
    expect(fieldsOf(shop.messages, "AdoptedSSInsertRuleURLBased")).toMatchObject([
      { rule: "p { color: rgb(4, 5, 6); }", index: 0 },
    ]);
  });

  test("tell clicks, scrolling and inputs, but not what was typed", async () => {
    const {
      shop: { messages },
    } = visited();
    expect(fieldsOf(messages, "MouseClick")).toMatchObject([
      { id: nodeOf(messages, "buy"), label: "Buy", selector: "#buy" },
      { id: nodeOf(messages, "news"), selector: "#news" },
    ]);
    expect(fieldsOf(messages, "SetViewportScroll").at(-1)).toEqual({ x: 0, y: 120 });
    const last = (name: string, id: string) =>
      fieldsOf(messages, name).findLast((fields) => fields["id"] === nodeOf(messages, id));
    expect(last("SetInputValue", "name")).toMatchObject({ value: "", mask: "Ann Other".length });
    expect(last("SetInputValue", "secret")).toMatchObject({ value: "", mask: -1 });
    expect(last("SetInputValue", "size")).toMatchObject({ value: "", mask: "large".length });
    expect(last("SetInputChecked", "news")).toMatchObject({ checked: true });
  });

  test("tell console, requests, errors and routes", () => {
    const {
      url: site,
      shop: { messages },
      secondTab,
    } = visited();
    expect(fieldsOf(messages, "ConsoleLog")).toEqual([
      { level: "log", value: "bought {items: 1}" },
    ]);
    expect(fieldsOf(messages, "NetworkRequest")).toMatchObject([
      { type: "fetch", method: "POST", url: `${site}/api/order`, status: 201 },
      { type: "fetch", method: "GET", url: `${site}/api/missing`, status: 404 },
    ]);
    expect(fieldsOf(messages, "JSException")).toMatchObject([
      { name: "TypeError", message: "broken on purpose" },
      { name: "Error", message: "caught by nobody" },
    ]);
    expect(fieldsOf(secondTab.messages, "SetPageLocation")).toMatchObject([
      { url: `${site}/`, title: "Shop" },
      { url: `${site}/route?page=2&token=***`, referrer: `${site}/` },
      { url: `${site}/next`, title: "Next" },
      { url: `${site}/next`, title: "Next" },
      { url: `${site}/next?second`, title: "Next" },
    ]);
  });

  test("send images of a canvas, which are those that its node names", async () => {
    const {
      sessionIDs: [sessionID = ""],
      shop: { messages },
    } = visited();
    const canvas = nodeOf(messages, "canvas");
    const [{ nodeId, ts } = {}] = fieldsOf(messages, "CanvasNode");
    expect(nodeId).toBe(String(canvas));
    const listed = await imageList(app, { sessionID });
    expect(listed.length).toBeGreaterThanOrEqual(UPLOADS);
    for (const { name, kind, sha256 } of listed) {
      expect([name, kind]).toEqual([`${Number(ts)}_${canvas}.webp.frames`, "frames"]);
      const bytes = await imageOf(app, String(name), project.id, `?sha256=${String(sha256)}`);
      const images = framesOf(bytes ?? new Uint8Array());
      expect(images).toHaveLength(IMAGES);
      for (const image of images) {
        expect(image.at).toBeGreaterThanOrEqual(Number(ts));
        expect(image.bytes.toString("latin1", 0, 12)).toMatch(/^RIFF.{4}WEBP$/s);
      }
    }
  });

  test("are one session, in whose second tab pages count anew", () => {
    const { sessionIDs, shop, next, reloaded, secondTab } = visited();
    expect(sessionIDs.size).toBe(1);
    expect([next.tab, reloaded.tab]).toEqual([shop.tab, shop.tab]);
    expect(secondTab.tab).not.toBe(shop.tab);
    const starts = secondTab.messages.filter(({ name }) => name === "CreateDocument");
    expect(starts.map(({ tab, pageNo }) => [tab, pageNo])).toEqual([
      [shop.tab, 0],
      [shop.tab, 1],
      [shop.tab, 2],
      [secondTab.tab, 0],
    ]);
  });

  test("know their session by a link that names project and session", () => {
    const { url, ingest, sessionURL, sessionIDs } = visited();
    const [sessionID] = sessionIDs;
    const origin = sameOrigin ? url : ingest.url;
    expect(sessionURL).toBe(`${origin}/${project.id}/session/${sessionID}`);
  });

  test("are found by what happened on them", async () => {
    const { url, sessionIDs } = visited();
    const [sessionID = ""] = sessionIDs;
    let row: Record<string, unknown> = {};
    await eventually("the last page is counted", async () => {
      row = await sessionRow(app, { sessionID });
      return row["pageViews"] === 5;
    });
    const paths = ["/", "/route?page=2&token=***", "/next", "/next?second"];
    expect(row).toMatchObject({
      platform: "web",
      userBrowser: "Chrome",
      errors: 2,
      page: `${url}/`,
      pages: paths.map((path) => url + path),
    });
  });

  test("send events of product analytics", async () => {
    const [sessionID = ""] = visited().sessionIDs;
    const texts = (await app.batches({ sessionID })).map((batch) => Buffer.from(batch).toString());
    expect(texts.find((text) => text.startsWith("{"))).toContain('"ordered"');
  });

  test("leave nothing of a session in quarantine", async () => {
    const [sessionID = ""] = visited().sessionIDs;
    expect(await app.batches({ sessionID }, "?quarantined=true")).toEqual([]);
  });
});

/** Splits a file of frames into its images with their times. */
function framesOf(file: Uint8Array): { at: number; bytes: Buffer }[] {
  const view = Buffer.from(file);
  const images: { at: number; bytes: Buffer }[] = [];
  for (let at = 0; at < view.length;) {
    const end = at + FRAME_HEAD_BYTES + view.readUInt32LE(at + 8);
    const bytes = view.subarray(at + FRAME_HEAD_BYTES, end);
    images.push({ at: Number(view.readBigUInt64LE(at)), bytes });
    at = end;
  }
  return images;
}
