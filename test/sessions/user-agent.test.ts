import { describe, expect, test } from "bun:test";
import { readUserAgent } from "../../src/sessions/user-agent.ts";
import { cpuMs } from "../support/eventually.ts";

const CHROME =
  "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.6778.86 Safari/537.36";
const SAFARI =
  "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4 Mobile/15E148 Safari/604.1";
const HEADLESS =
  "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/120.0.0.0 Safari/537.36";
const WEB_VIEW =
  "Mozilla/5.0 (Linux; Android 13; SM-S901B Build/TP1A; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/120.0.6099.43 Mobile Safari/537.36";

describe("passes", () => {
  test.each([
    "MyApp/1 CFNetwork/1410.0.3 Darwin/22.6.0",
    "My%20App/42 CFNetwork/3826.500.131 Darwin/24.5.0",
    "Robot Shop/3 CFNetwork/1410.0.3 Darwin/22.6.0",
    "Scanner Pro/8 CFNetwork/1410 Darwin/22.6.0",
    "Dalvik/2.1.0 (Linux; U; Android 13; Pixel 7 Build/TQ3A)",
    "Dalvik/2.1.0 (Linux; U; Android 11; CUBOT NOTE 20 Build/RP1A.200720.011)",
    "okhttp/4.9",
    "okhttp/4.12.0",
    "curl/8",
    "curl/8.5.0",
    "Bun/1.4.5",
    "Go-http-client/1.1",
    "Dart/3.2 (dart:io)",
    "MyApp/1.0 (com.example.app; build:1; iOS 17.0.0) Alamofire/5.8.1",
    "MyApp",
    CHROME,
    SAFARI,
    HEADLESS,
    WEB_VIEW,
  ])("%s", (agent) => {
    expect(readUserAgent(agent)).toBeDefined();
  });
});

describe("is refused", () => {
  test.each([
    null,
    "",
    "  ",
    "Googlebot/2.1 (+http://www.google.com/bot.html)",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 6_0 like Mac OS X) AppleWebKit/536.26 (KHTML, like Gecko) Version/6.0 Mobile/10A5376e Safari/8536.25 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    "Mozilla/5.0 (compatible; Yahoo! Slurp; http://help.yahoo.com/help/us/ysearch/slurp)",
    "Baiduspider+(+http://www.baidu.com/search/spider.htm)",
    "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
    "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
    "Applebot/0.1",
    "msnbot-media/1.1",
    "My Crawler 1.0",
  ])("%p", (agent) => {
    expect(readUserAgent(agent)).toBeUndefined();
  });
});

describe("names the system and the browser", () => {
  test.each([
    [CHROME, "Windows", "10.0", "Chrome", "131.0.6778"],
    [SAFARI, "iOS", "17.4.1", "Safari", "17.4"],
    [
      "Dalvik/2.1.0 (Linux; U; Android 13; Pixel 7 Build/TQ3A)",
      "Android",
      "13",
      "Android Browser",
      "",
    ],
    ["MyApp/1 CFNetwork/1410.0.3 Darwin/22.6.0", "Other", "", "MyApp", "1"],
    ["okhttp/4.12.0", "Other", "", "Other", ""],
  ])("of %s", (agent, os, osVersion, browser, browserVersion) => {
    expect(readUserAgent(agent)).toMatchObject({ os, osVersion, browser, browserVersion });
  });

  test.each([
    [CHROME, "", "desktop"],
    [SAFARI, "iPhone", "mobile"],
    [WEB_VIEW, "", "mobile"],
    [WEB_VIEW.replace(" Mobile", ""), "", "tablet"],
    ["okhttp/4.12.0", "", "other"],
  ])("and the device of %s", (agent, device, deviceType) => {
    expect(readUserAgent(agent)).toMatchObject({ device, deviceType });
  });
});

test("an agent is read once", () => {
  expect(readUserAgent(CHROME)).toBe(readUserAgent(CHROME));
});

test("an agent as long as headers get is read in no time", () => {
  const ms = cpuMs(() => {
    for (const part of ["Safari/ ", "a/1.0 (", "(", "1.", " "])
      readUserAgent(`Mozilla/5.0 ${part.repeat(10_000)}`);
  });
  expect(ms).toBeLessThan(100);
});
