import { beforeAll, describe, expect, test } from "bun:test";
import { type Browser } from "playwright-core";

import { TestApp } from "../support/app.ts";
import { openBrowser } from "../support/browser.ts";
import { aProject } from "../support/projects.ts";
import { type Recorded, documentOf, fieldsOf, nodeOf } from "../support/recorded-page.ts";
import { Site } from "../support/site.ts";
import { openTracked, recordedSoFar, sessionOf } from "../support/tracked-page.ts";

const SETUP_MS_MAX = 180_000;
/** Options of the tracker, each of which docs/websites.md names. */
const OPTIONS = {
  none: {},
  open: {
    defaultInputMode: 0,
    obscureTextEmails: false,
    obscureTextNumbers: true,
    network: { capturePayload: true },
    inlineCss: 1,
  },
  hidden: { defaultInputMode: 2, network: { ignoreHeaders: true }, inlineCss: 2 },
  private: { privateMode: true, inlineCss: 3 },
};
type Options = keyof typeof OPTIONS;
const ALL = ["none", "open", "hidden", "private"] as const;

/** Messages of a page, and its batches before something was selected. */
type Sent = { messages: Recorded[]; bytes: Buffer };

const app = TestApp.forTests();
const sent = new Map<Options, Sent>();

beforeAll(async () => {
  const { projectKey } = await aProject(app, { platform: "web" });
  await using browser = await openBrowser();
  await Promise.all(
    ALL.map(async (name) => sent.set(name, await visit(browser, name, projectKey))),
  );
}, SETUP_MS_MAX);

/** Reads, clicks and selects on the page that has secrets in all places. */
async function visit(browser: Browser, name: Options, projectKey: string): Promise<Sent> {
  await using site = await Site.open(app, { projectKey, tracker: OPTIONS[name] });
  const page = await openTracked(
    await browser.newContext(),
    `${site.url}/private?token=in-a-token`,
  );
  await page.click("#buy");
  await page.waitForFunction("window.hasBought");
  await recordedSoFar(app, page);
  const batches = await app.batches({ sessionID: await sessionOf(page) });
  await page.evaluate("select('#obscured', '#open')");
  return { messages: await recordedSoFar(app, page), bytes: Buffer.concat(batches) };
}

function sentWith(name: Options): Sent {
  const found = sent.get(name);
  if (found === undefined) throw new Error("not visited");
  return found;
}

/** Returns the text of an element as it was recorded. */
function textOf(name: Options, id: string): string | undefined {
  return new RegExp(` id="${id}".*?>(.*?)<`).exec(documentOf(sentWith(name).messages))?.[1];
}

function textsOf(id: string): (string | undefined)[] {
  return ALL.map((name) => textOf(name, id));
}

function valueOf(name: Options, id: string): Record<string, unknown> | undefined {
  const { messages } = sentWith(name);
  const node = nodeOf(messages, id);
  return fieldsOf(messages, "SetInputValue").findLast((fields) => fields["id"] === node);
}

test.each(ALL)(
  "with the options %s hidden elements, comments, scripts, links and passwords are never sent",
  (name) => {
    const { bytes } = sentWith(name);
    expect(bytes.includes("__openreplay_color_scheme")).toBe(true);
    for (const text of [
      "in a hidden element",
      "in a comment",
      "in a script",
      "in a meta",
      "in-a-link",
      "in a password",
      "in an authorization",
    ])
      expect([text, bytes.includes(text)]).toEqual([text, false]);
  },
);

test("texts are masked as options and attributes say", () => {
  const mail = "***@*******.***";
  expect(textsOf("mail")).toEqual([mail, "ann@example.com", mail, "*".repeat(15)]);
  expect(textsOf("card")).toEqual(["card 4111", "card 0000", "card 4111", "**** ****"]);
  expect(new Set(textsOf("obscured"))).toEqual(new Set(["** ** ******** ****"]));
  expect(new Set(textsOf("hidden"))).toEqual(new Set([""]));
  expect(new Set(textsOf("open"))).toEqual(new Set(["for all"]));
});

test("what is typed is masked as defaultInputMode says", () => {
  const masked = { value: "", mask: "in an input".length };
  const gone = { value: "", mask: -1 };
  expect(ALL.map((name) => valueOf(name, "name"))).toMatchObject([
    masked,
    { value: "in an input", mask: 0 },
    gone,
    masked,
  ]);
  // Numbers of four digits are masked in the open, too.
  expect(valueOf("open", "phone")).toMatchObject({ value: "", mask: "0049110".length });
  expect(ALL.map((name) => valueOf(name, "secret"))).toMatchObject([gone, gone, gone, gone]);
});

test("requests are sent without bodies, and with headers, unless options say otherwise", () => {
  const orders = ALL.map((name) =>
    fieldsOf(sentWith(name).messages, "NetworkRequest").find(({ method }) => method === "POST"),
  );
  expect(orders).toMatchObject([
    { request: '{"headers":{"x-note":"in a header"}}', status: 201 },
    { request: '{"headers":{"x-note":"in a header"},"body":"in a body"}', status: 201 },
    { request: '{"headers":{}}', response: '{"headers":{}}', status: 201 },
    { url: "************", request: '{"headers":{}}', response: '{"headers":{}}', status: 201 },
  ]);
});

describe("what options do not mask", () => {
  test("titles, selected text, errors and the page's address are sent, whatever the options", () => {
    for (const name of ALL) {
      const { messages, bytes } = sentWith(name);
      expect(bytes.includes("/private?token=in-a-token")).toBe(true);
      expect(documentOf(messages)).toContain('title="in a title"');
      expect(fieldsOf(messages, "SelectionChange").at(-1)).toMatchObject({
        text: "in an obscured text in a hidden element for all",
      });
      expect(fieldsOf(messages, "JSException")[0]).toMatchObject({ message: "broken on purpose" });
    }
  });

  test("console, addresses and the first text of a textarea are masked in private mode alone", () => {
    const logs = ALL.map((name) => fieldsOf(sentWith(name).messages, "ConsoleLog")[0]);
    expect(logs.map((log) => log?.["value"])).toEqual([
      "bought {items: 1}",
      "bought {items: 1}",
      "bought {items: 1}",
      "*".repeat("bought {items: 1}".length),
    ]);
    expect(ALL.map((name) => sentWith(name).bytes.includes("in-a-video"))).toEqual([
      true,
      true,
      true,
      false,
    ]);
    expect(textsOf("note")).toEqual([
      "in a textarea",
      "in a textarea",
      "in a textarea",
      "** * ********",
    ]);
  });
});

test("a linked style sheet is in the recording if inlineCss says so", () => {
  const COLOR = /^\.title \{\s*color: rgb\(1, 2, 3\);\s*\}\s*$/;
  const rules = (name: Options) => fieldsOf(sentWith(name).messages, "AdoptedSSInsertRuleURLBased");
  const link = { name: "href", value: "/style.css" };
  expect(fieldsOf(sentWith("none").messages, "SetNodeAttributeURLBased")).toContainEqual(
    expect.objectContaining(link),
  );
  expect(sentWith("none").bytes.includes("rgb(1, 2, 3)")).toBe(false);
  for (const name of ["open", "hidden"] as const)
    expect(rules(name)).toMatchObject([{ rule: expect.stringMatching(COLOR), index: 0 }]);
  expect(fieldsOf(sentWith("private").messages, "SetCSSDataURLBased")).toMatchObject([
    { data: expect.stringMatching(COLOR) },
  ]);
});
