import { describe, expect, test } from "bun:test";

import { TestApp } from "../../support/app.ts";

const app = TestApp.forTests();

describe("the page", () => {
  test("needs nothing from another host", async () => {
    const answer = await app.fetch("/docs");
    expect(answer.headers.get("content-type")).toBe("text/html; charset=utf-8");
    const page = await answer.text();
    expect(page).not.toMatch(/(?:https?:)?\/\//);
    const wanted = [...page.matchAll(/(?:href|src|url)(?:=|: )"([^"]+)"/g)].map(([, path]) => path);
    expect(wanted).toEqual(["/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", "/docs/json"]);
  });

  test.each([
    ["/docs/swagger-ui.css", "text/css", 50_000],
    ["/docs/swagger-ui-bundle.js", "text/javascript", 500_000],
  ])("finds %s here", async (path, type, bytesMin) => {
    const answer = await app.fetch(path);
    expect(answer.headers.get("content-type")).toStartWith(type);
    expect((await answer.bytes()).length).toBeGreaterThan(bytesMin);
  });

  test("has a style sheet that loads nothing from another host", async () => {
    const css = await (await app.fetch("/docs/swagger-ui.css")).text();
    expect([...css.matchAll(/(?:url\(|@import)\s*["']?(?!data:)([^"')]+)/g)]).toEqual([]);
  });
});
