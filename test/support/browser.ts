import { type Browser } from "playwright-core";

import { needPrograms, programPath } from "./packages.ts";

const NEED = {
  programs: ["chromium"],
  packages: ["chromium"],
  otherwise: "The tests need a browser: set TEST_BROWSER to the path of a Chromium",
};

/** Installs a browser if there is none. */
export async function needBrowser(): Promise<void> {
  if (!process.env["TEST_BROWSER"]) await needPrograms(NEED);
}

/** Starts a headless Chromium, without its sandbox, which root cannot have. */
export async function openBrowser(): Promise<Browser> {
  await needBrowser();
  // Imported here, because the preload loads this file for every test, and few need the client.
  const { chromium } = await import("playwright-core");
  return await chromium.launch({
    executablePath: process.env["TEST_BROWSER"] || (programPath("chromium") ?? ""),
    args: ["--no-sandbox"],
  });
}
