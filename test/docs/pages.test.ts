import { existsSync } from "node:fs";
import { dirname, join, normalize } from "node:path";

import { describe, expect, test } from "bun:test";

import { PAGES, ROOT, codeOf, readPage, tableRows, withoutCode } from "../support/markdown.ts";

const COLUMNS_MAX = 120;
const README_LINES_MAX = 120;

describe.each(PAGES)("%s", (page) => {
  test("links to files and headings that exist", () => {
    const links = [...withoutCode(readPage(page)).matchAll(/\]\(([^)\s]+)\)/g)].map(
      ([, link = ""]) => link,
    );
    const own = links.filter((link) => !/^[a-z]+:/.test(link));
    expect(own.filter((link) => !leadsSomewhere(page, link))).toEqual([]);
  });

  test("wraps its prose at 120 columns", () => {
    const lines = withoutCode(readPage(page)).split("\n");
    const prose = lines.filter((line) => !line.startsWith("|"));
    expect(prose.filter((line) => line.length > COLUMNS_MAX)).toEqual([]);
  });
});

test.each(["src/README.md", "CONTRIBUTING.md"])("%s names paths that exist", (page) => {
  expect(missingPaths(readPage(page))).toEqual([]);
});

test("the README is read in a minute", () => {
  expect(readPage("README.md").split("\n").length - 1).toBeLessThanOrEqual(README_LINES_MAX);
});

test("the index of docs lists every page there", () => {
  const others = PAGES.filter((page) => page.startsWith("docs/") && page !== "docs/README.md");
  const index = readPage("docs/README.md");
  expect(others.filter((page) => !index.includes(`(${page.slice("docs/".length)})`))).toEqual([]);
});

test("the table of alerts names those that deploy/alerts.yaml has", () => {
  const alerts = [...readPage("deploy/alerts.yaml").matchAll(/- alert: (\w+)/g)];
  const listed = tableRows("docs/operations.md").map(([name]) => codeOf(name) ?? "");
  expect(listed.filter((name) => name.startsWith("Floodgate")).toSorted()).toEqual(
    alerts.map(([, name = ""]) => name).toSorted(),
  );
});

test("the options of the web tracker that the manual names are those of its types", () => {
  const types = readPage("node_modules/@openreplay/tracker/dist/lib/index.d.ts");
  const cells = tableRows("docs/websites.md").map(([name = ""]) => name);
  const options = cells.flatMap((cell) => cell.match(/(?<=`)[a-z]+(?=`)|(?<=\{ )\w+/gi) ?? []);
  expect(options).toEqual(expect.arrayContaining(["obscureInputEmails", "capturePayload"]));
  expect(options.filter((name) => !new RegExp(`^ +${name}\\??: `, "m").test(types))).toEqual([]);
});

test("a missing path, link or heading would be found", () => {
  expect(missingPaths("`src/nothing.ts`, `nothing/`, `src/app.ts`, `log/`")).toHaveLength(2);
  expect(leadsSomewhere("docs/README.md", "nothing.md")).toBe(false);
  expect(leadsSomewhere("docs/README.md", "storage.md#nothing")).toBe(false);
  expect(leadsSomewhere("docs/README.md", "storage.md#when-something-fails")).toBe(true);
});

function leadsSomewhere(page: string, link: string): boolean {
  const [file = "", heading] = link.split("#");
  const target = file === "" ? page : normalize(join(dirname(page), file));
  if (!existsSync(join(ROOT, target))) return false;
  return heading === undefined || headingsOf(target).includes(heading);
}

/** Lists paths in backticks that exist neither from the root nor from `src`. */
function missingPaths(text: string): string[] {
  const paths = [...withoutCode(text).matchAll(/`([\w./-]+\/(?:[\w-]+\.[\w.]+)?)`/g)];
  return paths.flatMap(([, path = ""]) => {
    const exists = ["", "src"].some((folder) => existsSync(join(ROOT, folder, path)));
    return exists || path.includes("NNNN") ? [] : [path];
  });
}

/** Returns the anchors that repository hosts make of a page's headings. */
function headingsOf(page: string): string[] {
  return [...withoutCode(readPage(page)).matchAll(/^#+ (.+)$/gm)].map(([, heading = ""]) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-"),
  );
}
