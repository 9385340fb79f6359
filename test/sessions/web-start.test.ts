import { beforeAll, describe, expect, test } from "bun:test";

import { sessionTime } from "../../src/log/session-time.ts";
import { Tokens } from "../../src/sessions/token.ts";
import { objectOf, sessionRow } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { expectNow } from "../support/now.ts";
import { type TestProject, aProject } from "../support/projects.ts";
import { CHROME, WEB_START, aPage } from "../support/web-starts.ts";

const TOKENS = new Tokens(["test-secret"]);
const HOUR_MS = 3_600_000;
/** Two starts as tracker 19.0.1 sends them, on the first page of a visit and on the second one. */
const RECORDED = [
  '{"userUUID":null,"projectKey":"aaaaaaaaaaaaaaaaaaaa","revID":"","trackerVersion":"19.0.1","isSnippet":false,"timestamp":1796052224413,"doNotRecord":false,"bufferDiff":0,"userID":"user-42","deviceMemory":16384,"jsHeapSizeLimit":4395630592,"timezone":"UTC+00:00","assistOnly":false,"width":1000,"height":700,"referrer":""}',
  '{"userUUID":"0956e04d-a354-4719-9754-635819100bd8","projectKey":"aaaaaaaaaaaaaaaaaaaa","revID":"","trackerVersion":"19.0.1","isSnippet":false,"timestamp":1796052234710,"doNotRecord":false,"bufferDiff":0,"userID":null,"token":"TOKEN","deviceMemory":16384,"jsHeapSizeLimit":4395630592,"timezone":"UTC+00:00","assistOnly":false,"width":900,"height":650,"referrer":""}',
] as const;

const app = TestApp.forTests();
let web: TestProject;
let told: TestProject;

beforeAll(async () => {
  web = await aProject(app, { platform: "web", key: "a".repeat(20) });
  told = await aProject(app, {
    platform: "web",
    beaconBytesMax: 4096,
    recordCanvas: true,
    canvasQuality: "high",
    canvasFps: 4,
    sessionMs: HOUR_MS,
  });
});

describe("a start of a web page", () => {
  test("is answered with every field that trackers read", async () => {
    const before = Date.now();
    const answer = await aPage(app, web, { timestamp: before - 5000 });
    expect(answer).toEqual({
      token: expect.any(String),
      sessionID: expect.stringMatching(/^[1-9]\d{18}$/),
      userUUID: expect.stringMatching(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-/),
      projectID: String(web.id),
      delay: expect.any(Number),
      startTimestamp: sessionTime(BigInt(answer.sessionID)),
      timestamp: 0,
      userOS: "Linux",
      userDevice: "",
      userBrowser: "Chrome",
      userCountry: "UN",
      userState: "",
      userCity: "",
      beaconSizeLimit: 1_000_000,
      compressionThreshold: 20_000,
      canvasEnabled: false,
      canvasQuality: "low",
      canvasFPS: 1,
      framesSupport: true,
      protocolVersion: 2,
      assistOnly: false,
      features: { "feature-flags": false, "usability-test": false },
    });
    expect(answer.token).not.toMatch(/_\$_|&/);
    const claims = TOKENS.verify(answer.token, before);
    expect(claims).toMatchObject({ kind: "valid", sessionId: BigInt(answer.sessionID) });
    expect(claims?.delay).toBe(Number(answer["delay"]));
    // The delay is the server's clock less the client's, which is 5 seconds behind.
    expectNow(Number(claims?.delay) + before - 5000, before);
    expectNow(Number(claims?.expiresAt) - 2 * HOUR_MS, before);
  });

  test("keeps what the tracker and the browser say of themselves", async () => {
    const { sessionID } = await aPage(app, web, {
      userID: "user-42",
      revID: "r1",
      timezone: "UTC+02:00",
      deviceMemory: 16_384,
      width: 1000,
      height: 700,
    });
    expect(await sessionRow(app, { sessionID })).toMatchObject({
      projectId: web.id,
      recorded: true,
      platform: "web",
      trackerVersion: "19.0.1",
      revID: "r1",
      userID: "user-42",
      userOS: "Linux",
      userBrowser: "Chrome",
      userBrowserVersion: "156.0.0",
      userDevice: "",
      userDeviceType: "desktop",
      timezone: "UTC+02:00",
      deviceMemory: 16_384,
      width: 1000,
      height: 700,
    });
  });

  test("as it was recorded makes a session, and the second page goes on with it", async () => {
    const [first, second] = RECORDED;
    const headers = { "user-agent": CHROME, "content-type": "application/json" };
    const begun = await objectOf(app.post("/ingest/v1/web/start", first, headers));
    const next = second.replace("TOKEN", String(begun["token"]));
    const resumed = await objectOf(app.post("/ingest/v1/web/start", next, headers));
    expect(resumed).toMatchObject({
      sessionID: begun["sessionID"],
      token: begun["token"],
      delay: begun["delay"],
      startTimestamp: begun["startTimestamp"],
      userUUID: "0956e04d-a354-4719-9754-635819100bd8",
    });
    const row = await sessionRow(app, { sessionID: String(begun["sessionID"]) });
    expect(row).toMatchObject({ userID: "user-42", width: 1000 });
  });

  test("without recording makes a session whose data is not stored", async () => {
    for (const fields of [{ doNotRecord: true }, { assistOnly: true }]) {
      const answer = await aPage(app, web, fields);
      expect(answer["assistOnly"]).toBe("assistOnly" in fields);
      expect(await sessionRow(app, answer)).toMatchObject({ recorded: false });
    }
  });

  test("is told the settings of its project", async () => {
    const answer = await aPage(app, told);
    expect(answer).toMatchObject({
      beaconSizeLimit: 4096,
      canvasEnabled: true,
      canvasQuality: "high",
      canvasFPS: 4,
    });
    const expiresAt = Number(TOKENS.verify(answer.token, 0)?.expiresAt);
    expect(Math.abs(expiresAt - HOUR_MS - sessionTime(BigInt(answer.sessionID)))).toBeLessThan(
      1000,
    );
  });

  test("is told the settings of the environment, unless its project has its own", async () => {
    await using own = await TestApp.start({
      env: {
        COMPRESSION_THRESHOLD: "7",
        RECORD_CANVAS: "true",
        CANVAS_QUALITY: "medium",
        CANVAS_FPS: "3",
        PROTOCOL_VERSION: "1",
      },
    });
    const configured = await aProject(own, { platform: "web" });
    const off = await aProject(own, { platform: "web", recordCanvas: false });
    const ask = async ({ projectKey }: TestProject) =>
      await objectOf(own.start({ projectKey, trackerVersion: "19.0.1" }, WEB_START));
    expect(await ask(configured)).toMatchObject({
      compressionThreshold: 7,
      canvasEnabled: true,
      canvasQuality: "medium",
      canvasFPS: 3,
      protocolVersion: 1,
    });
    expect(await ask(off)).toMatchObject({ canvasEnabled: false, canvasQuality: "medium" });
  });

  test.each([1e300, -1e300, 1.5, 0])("at the client's time %d gets a token", async (timestamp) => {
    const { token, delay } = await aPage(app, web, { timestamp });
    expect(TOKENS.verify(token, Date.now())).toMatchObject({ kind: "valid", delay });
  });
});

async function startedAt(fields: Record<string, unknown>): Promise<number> {
  const { startedAt: time } = await sessionRow(app, await aPage(app, web, fields));
  return Date.parse(String(time));
}

describe("the start of the session is", () => {
  test("when the tracker began to buffer, up to five minutes ago", async () => {
    const before = Date.now();
    expectNow((await startedAt({ bufferDiff: 299_999 })) + 299_999, before);
    for (const bufferDiff of [0, 300_000, 1e15]) expectNow(await startedAt({ bufferDiff }), before);
  });

  test("now by the server's clock, and the client's for what was recorded offline", async () => {
    const before = Date.now();
    const timestamp = before - HOUR_MS;
    expectNow(await startedAt({ timestamp }), before);
    expect(await startedAt({ timestamp, isOffline: true })).toBe(timestamp);
    expectNow(await startedAt({ timestamp: 0, isOffline: true }), before);
  });
});
