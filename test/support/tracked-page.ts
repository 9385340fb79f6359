import { type BrowserContext, type Page } from "playwright-core";
import { Type } from "typebox";
import { Value } from "typebox/value";

import { type TestApp } from "./app.ts";
import { eventually } from "./eventually.ts";
import { type Recorded, fieldsOf, recordedMessages } from "./recorded-page.ts";

const Started = Type.Object({ success: Type.Literal(true), sessionID: Type.String() });

/** Opens a page of the site; resolves once it is recorded. */
export async function openTracked(context: BrowserContext, url: string): Promise<Page> {
  const page = await context.newPage();
  await page.goto(url);
  await sessionOf(page);
  return page;
}

/** Clicks, types, scrolls and edits on the first page of the site. */
export async function useShop(page: Page): Promise<void> {
  await page.click("#buy");
  await page.fill("#name", "Ann Other");
  await page.fill("#secret", "hush");
  await page.check("#news");
  await page.selectOption("#size", "large");
  await page.evaluate("edit()");
  await page.evaluate("history.pushState({}, '', '/route?page=2&token=abc')");
  await page.evaluate("scrollTo(0, 120)");
}

/** Waits until the page is recorded, and returns its session. */
export async function sessionOf(page: Page): Promise<string> {
  await page.waitForFunction("window.started");
  return Value.Parse(Started, await page.evaluate("started")).sessionID;
}

/** Returns what the page's session has once everything that the page did is there. */
export async function recordedSoFar(app: TestApp, page: Page): Promise<Recorded[]> {
  const name = crypto.randomUUID();
  await page.evaluate(`mark("${name}")`);
  return await recordedWith(app, await textIn(page, "tracker.getSessionID()"), name);
}

/** Waits until a session has a mark that a page set, and returns all of it. */
export async function recordedWith(
  app: TestApp,
  sessionID: string,
  mark: string,
): Promise<Recorded[]> {
  let messages: Recorded[] = [];
  await eventually(`the mark ${mark}`, async () => {
    messages = await recordedMessages(app, { sessionID });
    return fieldsOf(messages, "CustomEvent").some(({ payload }) => payload === mark);
  });
  return messages;
}

/** Returns the page's tree, in the format of `documentOf`. */
export async function treeOf(page: Page): Promise<string> {
  return await textIn(page, "treeOf(document.documentElement)");
}

/** Evaluates an expression that is a text in the page. */
export async function textIn(page: Page, expression: string): Promise<string> {
  return Value.Parse(Type.String(), await page.evaluate(expression));
}

/** Returns whether the tracker records the page. */
export async function isActive(page: Page): Promise<boolean> {
  return Value.Parse(Type.Boolean(), await page.evaluate("tracker.isActive()"));
}
