import { parse as parseAgent } from "bowser";
import { createIsbotFromList, list } from "isbot";
import { LRUCache } from "lru-cache";

import { type DeviceType, isDeviceType } from "./device.ts";

/**
 * Unknown names are "Other", but `device` is empty; versions are up to three numbers joined by
 * dots, or empty.
 */
export type UserAgent = {
  os: string;
  osVersion: string;
  browser: string;
  browserVersion: string;
  device: string;
  deviceType: DeviceType;
};

/** Stands for an agent that was not accepted. */
export const UNKNOWN_AGENT: UserAgent = {
  os: "Other",
  osVersion: "",
  browser: "Other",
  browserVersion: "",
  device: "",
  deviceType: "other",
};

const LENGTH_MAX = 512;

/** Cache of parsed agents, false for bots. Bounded, because clients can send any header. */
const seen = new LRUCache<string, UserAgent | false>({ max: 1_000 });

/**
 * Parses the header. Returns undefined if the client must be refused, because it sent no agent or a
 * crawler's. Unknown agents pass, since those of the SDKs are unknown, too.
 */
export function readUserAgent(header: string | null): UserAgent | undefined {
  const agent = header?.trim().slice(0, LENGTH_MAX);
  if (!agent) return undefined;
  let known = seen.get(agent);
  if (known === undefined) {
    known = !isCrawler(agent) && parse(agent);
    seen.set(agent, known);
  }
  return known || undefined;
}

/**
 * Matches the HTTP stacks of iOS and Android. Their agents hold names of apps and phones that may
 * look like a bot's: "Robot Shop/3 CFNetwork/1410", "CUBOT NOTE 20".
 */
const SDK_STACK = /^Dalvik\/|\bCFNetwork\//;
const CRAWLER_NAME = /bots?\b|crawl|spider|slurp|\+https?:/i;
/** Accepts headless browsers, with which customers test their own pages. */
const isBrowserBot = createIsbotFromList(list.filter((pattern) => pattern !== "headless"));

/**
 * Returns whether the agent is a crawler. isbot takes everything but browsers for a bot, okhttp and
 * curl included, so other agents are judged by their name alone.
 */
function isCrawler(agent: string): boolean {
  if (SDK_STACK.test(agent)) return false;
  return agent.startsWith("Mozilla/") ? isBrowserBot(agent) : CRAWLER_NAME.test(agent);
}

/** Parses with Bowser, which names an iOS app "MyApp/1 CFNetwork", with CFNetwork's version. */
function parse(agent: string): UserAgent {
  const { os, browser, platform } = parseAgent(agent);
  const [name, ownVersion] = browser.name?.split("/") ?? [];
  return {
    os: os.name || "Other",
    osVersion: version(os.version),
    browser: name || "Other",
    browserVersion: version(ownVersion ?? browser.version),
    device: platform.model ?? "",
    deviceType: isDeviceType(platform.type) ? platform.type : "other",
  };
}

function version(text = ""): string {
  return /\d+(?:\.\d+){0,2}/.exec(text)?.[0] ?? "";
}
