import { parse as parseAgent } from "bowser";
import { createIsbotFromList, list } from "isbot";
import { LRUCache } from "lru-cache";

/** Names are "Other" where the agent does not tell; versions are up to three numbers joined by dots, or empty. */
export type UserAgent = { os: string; osVersion: string; browser: string; browserVersion: string };

const LENGTH_MAX = 512;

/** Bots are kept as false. Bounded, since headers are the client's; full of the few agents that SDKs send. */
const seen = new LRUCache<string, UserAgent | false>({ max: 1_000 });

/** Undefined means the client is refused: it sent no agent, or a crawler's. Agents nobody knows pass, as the SDKs' own are. */
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

/** The HTTP stacks of iOS and Android. Their agents hold names of apps and phones: "Robot Shop/3 CFNetwork/1410", "CUBOT NOTE 20". */
const SDK_STACK = /^Dalvik\/|\bCFNetwork\//;
const CRAWLER_NAME = /bots?\b|crawl|spider|slurp|\+https?:/i;
/** A headless browser is a customer's test of its own page. */
const isBrowserBot = createIsbotFromList(list.filter((pattern) => pattern !== "headless"));

/** isbot knows browsers: all else is a bot to it, okhttp and curl included. So other agents must give themselves away by name. */
function isCrawler(agent: string): boolean {
  if (SDK_STACK.test(agent)) return false;
  return agent.startsWith("Mozilla/") ? isBrowserBot(agent) : CRAWLER_NAME.test(agent);
}

/** Bowser calls an iOS app "MyApp/1 CFNetwork" and gives it CFNetwork's version. */
function parse(agent: string): UserAgent {
  const { os, browser } = parseAgent(agent);
  const [name, ownVersion] = browser.name?.split("/") ?? [];
  return {
    os: os.name || "Other",
    osVersion: version(os.version),
    browser: name || "Other",
    browserVersion: version(ownVersion ?? browser.version),
  };
}

function version(text = ""): string {
  return /\d+(?:\.\d+){0,2}/.exec(text)?.[0] ?? "";
}
