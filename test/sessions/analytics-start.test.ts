import { gzipSync } from "node:zlib";
import { beforeAll, describe, expect, test } from "bun:test";

import { Tokens } from "../../src/sessions/token.ts";
import { objectOf, refusalOf, sessionRow } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { expectNow } from "../support/now.ts";
import { type TestProject, aProject } from "../support/projects.ts";

const PATH = "/v1/sdk/start";
const DAY_MS = 86_400_000;
const DEVICE = "5f0c0f0e-3a51-4a57-9d4b-6f4d6d1c1b1a";
const FIELDS = {
  os: "Mac OS X",
  os_version: "14.4",
  browser: "Safari",
  browser_version: "17.4",
  platform: "desktop",
  screen_height: 900,
  screen_width: 1440,
  initial_referrer: "https://search.example/",
  user_id: "user-42",
  device_id: DEVICE,
  sdk_edition: "web",
  sdk_version: "1.0.0",
  timezone: "UTC+02:00",
};

const app = TestApp.forTests();
let web: TestProject;

beforeAll(async () => {
  web = await aProject(app, { platform: "web" });
});

async function start(body: object): Promise<Response> {
  return await app.post(PATH, JSON.stringify(body));
}

/** Returns the session of an answer, and when its token expires. */
async function sessionOf(answer: Promise<Response>) {
  const { token, ...more } = await objectOf(answer);
  expect(more).toEqual({});
  const claims = new Tokens(["test-secret"]).verify(String(token), Date.now());
  return { sessionID: String(claims?.sessionId), expiresAt: Number(claims?.expiresAt) };
}

describe("a start of product analytics", () => {
  test("makes a session of what the SDK says, and a token for a day", async () => {
    const before = Date.now();
    const session = await sessionOf(start({ projectKey: web.projectKey, ...FIELDS }));
    expectNow(session.expiresAt - DAY_MS, before);
    expect(await sessionRow(app, session)).toMatchObject({
      projectId: web.id,
      recorded: true,
      platform: "web",
      trackerVersion: "1.0.0",
      userID: "user-42",
      userUUID: DEVICE,
      userOS: "Mac OS X",
      userOSVersion: "14.4",
      userBrowser: "Safari",
      userBrowserVersion: "17.4",
      timezone: "UTC+02:00",
      width: 1440,
      height: 900,
    });
  });

  test("may nest its fields", async () => {
    const nested = start({ projectKey: web.projectKey, defaultFields: FIELDS });
    expect(await sessionRow(app, await sessionOf(nested))).toMatchObject({ userID: "user-42" });
    const all = start({ defaultFields: { ...FIELDS, projectKey: web.projectKey } });
    expect(await sessionRow(app, await sessionOf(all))).toMatchObject({ projectId: web.id });
  });

  test("may come from an app, in gzip", async () => {
    const body = gzipSync(JSON.stringify({ projectKey: app.project.projectKey }));
    const answer = app.post(PATH, body, { "content-encoding": "gzip" });
    const row = await sessionRow(app, await sessionOf(answer));
    expect(row).toMatchObject({ platform: app.project.platform, userUUID: expect.any(String) });
  });

  test.each<[number, string, string]>([
    [400, '{"projectKey":', "the body is not valid JSON"],
    [400, "[]", "the body is not a JSON object"],
    [400, "{}", "projectKey is missing"],
    [400, '{"projectKey":"x","user_id":1}', "user_id is not a string"],
    [404, '{"projectKey":"no-such-key"}', "project not found"],
    [413, " ".repeat(131_073), "the body is over the limit of 131072 bytes"],
  ])("is refused with %d if its body is %p", async (status, body, text) => {
    expect(await refusalOf(app.post(PATH, body))).toEqual([status, text]);
  });
});
