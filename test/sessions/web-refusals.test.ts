import { gzipSync } from "node:zlib";
import { beforeAll, describe, expect, test } from "bun:test";

import { refusalOf } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { type TestProject, aProject } from "../support/projects.ts";
import { CHROME, WEB_START, aPage, startPage } from "../support/web-starts.ts";

const CRAWLER = { "user-agent": "Mozilla/5.0 (compatible; Googlebot/2.1)" };

const app = TestApp.forTests();
let projects: Record<string, TestProject> & Record<"web" | "unsampled", TestProject>;

beforeAll(async () => {
  projects = {
    web: await aProject(app, { platform: "web" }),
    unsampled: await aProject(app, { platform: "web", sampleRate: 0 }),
    inactive: await aProject(app, { platform: "web", active: false }),
  };
});

/** A start request of exactly so many bytes. */
function startOf(bytes: number): string {
  const { projectKey } = projects.web;
  const fields = { projectKey, trackerVersion: "19.0.1", padding: "" };
  const padding = "x".repeat(bytes - JSON.stringify(fields).length);
  return JSON.stringify({ ...fields, padding });
}

async function post(body: Bun.BodyInit, headers: Record<string, string> = {}): Promise<Response> {
  return await app.post(WEB_START, body, { "user-agent": CHROME, ...headers });
}

describe("checks are made in their order: a start is refused by the first that fails", () => {
  const isOld = { trackerVersion: "5.9.9" };
  const isNameless = { projectKey: null };
  const isUnknown = { projectKey: "no-such-key" };
  const text = {
    old: "trackerVersion must be at least 6.0.0",
    nameless: "projectID or projectKey is missing",
    platform: "the project is for another platform",
    crawler: "the user agent is not accepted",
    rate: "capture rate miss, rate: 0",
  };
  test.each<[number, string, string, Record<string, unknown>]>([
    [426, "an old version", text.old, { ...isOld, ...isNameless }],
    [426, "no version", text.old, { trackerVersion: null }],
    [426, "a version that is none", text.old, { trackerVersion: "version 9.0.0" }],
    [403, "no project", text.nameless, isNameless],
    [404, "an unknown project", "project not found", isUnknown],
    [404, "an inactive project", "project is not active", { project: "inactive" }],
    [403, "a crawler", text.crawler, { project: "unsampled" }],
  ])("%d for %s", async (status, _what, problem, { project = "web", ...fields }) => {
    const answer = startPage(app, projects[String(project)] ?? projects.web, fields, CRAWLER);
    expect(await refusalOf(answer)).toEqual([status, problem]);
  });

  test("a project of an app is for another platform, whatever the agent is", async () => {
    expect(await refusalOf(startPage(app, app.project, {}, CRAWLER))).toEqual([403, text.platform]);
  });

  test("a crawler is refused even with a valid token", async () => {
    const { token } = await aPage(app, projects.web);
    const answer = startPage(app, projects.web, { token }, CRAWLER);
    expect(await refusalOf(answer)).toEqual([403, text.crawler]);
  });

  test("a user that is not sampled is refused last", async () => {
    expect(await refusalOf(startPage(app, projects.unsampled))).toEqual([403, text.rate]);
  });

  test.each(["6.0.0", "v6.0", "6.0.0-beta.1", "19.0.1"])(
    "version %s is enough",
    async (version) => {
      expect((await startPage(app, projects.web, { trackerVersion: version })).status).toBe(200);
    },
  );
});

describe("a body that cannot be read", () => {
  const gzip = { "content-encoding": "gzip" };

  test("is one of over 131,072 bytes, as sent or inflated", async () => {
    expect((await post(startOf(131_072))).status).toBe(200);
    expect((await post(gzipSync(startOf(131_072)), gzip)).status).toBe(200);
    const text = "body is over the limit of 131072 bytes";
    expect(await refusalOf(post(startOf(131_073)))).toEqual([413, `the ${text}`]);
    const inflated = post(gzipSync(startOf(131_073)), gzip);
    expect(await refusalOf(inflated)).toEqual([413, `the inflated ${text}`]);
  });

  test("is one of bad gzip", async () => {
    const cut = gzipSync(startOf(1000)).subarray(0, 60);
    expect(await refusalOf(post(cut, gzip))).toEqual([413, "the body is not valid gzip"]);
  });

  test.each<[string, string, string]>([
    ["nothing", "", "the body is not valid JSON"],
    ["a list", "[]", "the body is not a JSON object"],
    ["a field of another type", '{"reset":1}', "reset is not a boolean"],
  ])("is told from one that is wrong, such as %s", async (_what, body, text) => {
    expect(await refusalOf(post(body))).toEqual([400, text]);
  });
});
