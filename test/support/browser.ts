import { type Browser } from "playwright-core";

import { needPrograms, programPath } from "./packages.ts";

const NEED = {
  programs: ["chromium"],
  packages: ["chromium"],
  otherwise: "The tests need a browser: set TEST_BROWSER to the path of a Chromium",
};

/** Makes sure that there is a browser. */
export async function needBrowser(): Promise<void> {
  if (!process.env["TEST_BROWSER"]) await needPrograms(NEED);
}

/** A headless Chromium. It loads the tests' own pages only, so it can do without its sandbox, which root cannot have. */
export async function openBrowser(): Promise<Browser> {
  await needBrowser();
  // Here, because the preload loads this file for every test, and few need the client.
  const { chromium } = await import("playwright-core");
  return await chromium.launch({
    executablePath: process.env["TEST_BROWSER"] || (programPath("chromium") ?? ""),
    args: ["--no-sandbox"],
  });
}
