import { gzipSync } from "node:zlib";
import { beforeAll, describe, expect, test } from "bun:test";

import { encodeProjectID } from "../../src/projects/codec.ts";
import { sessionTime } from "../../src/log/session-time.ts";
import { Tokens } from "../../src/sessions/token.ts";
import { objectOf, refusalOf, sessionRow } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { expectNow } from "../support/now.ts";
import { type TestProject, aProject } from "../support/projects.ts";
import { RawConnection } from "../support/raw-connection.ts";

const UUID_V4 = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const USER = "5f0c0f0e-3a51-4a57-9d4b-6f4d6d1c1b1a";
const JSON_BYTES_MAX = 131_072;
const PATHS = ["/v1/ios/start", "/v1/mobile/start"];

const app = TestApp.forTests();
let web: TestProject;
let inactive: TestProject;
let unsampled: TestProject;
let limited: TestProject;

beforeAll(async () => {
  web = await aProject(app, { platform: "web" });
  inactive = await aProject(app, { active: false });
  unsampled = await aProject(app, { sampleRate: 0 });
  limited = await aProject(app, { beaconBytesMax: 4096, platform: "android" });
});

/** A start without the defaults of `app.start`. */
async function post(path: string, body: string | Record<string, unknown>): Promise<Response> {
  return await app.post(path, typeof body === "string" ? body : JSON.stringify(body));
}

/** A start request of exactly so many bytes. */
function startOf(bytes: number): string {
  const fields = { projectID: app.projectID, trackerVersion: "1.0.14", padding: "" };
  const padding = "x".repeat(bytes - JSON.stringify(fields).length);
  return JSON.stringify({ ...fields, padding });
}

describe.each(PATHS)("a start at %s", (path) => {
  test("answers every field that either generation of SDKs decodes", async () => {
    const before = Date.now();
    const started = await objectOf(app.start({ userUUID: USER }, path));
    const after = Date.now();
    expect(started).toEqual({
      token: expect.any(String),
      sessionID: expect.stringMatching(/^[1-9]\d{18}$/),
      userUUID: USER,
      imagesHashList: [],
      beaconSizeLimit: 1_000_000,
      projectID: String(app.project.id),
      quality: "low",
      fps: 1,
      framesSupport: true,
    });
    const claims = new Tokens(["test-secret"]).verify(String(started["token"]), after);
    expect(claims).toMatchObject({
      kind: "valid",
      sessionId: BigInt(String(started["sessionID"])),
      delay: 0,
    });
    const startedMs = Number(claims?.expiresAt) - 7_200_000;
    expectNow(startedMs, before);
    // The clock of the id stands still within a millisecond and runs ahead only in a flood.
    expect(Math.abs(sessionTime(claims?.sessionId ?? 0n) - startedMs)).toBeLessThan(1000);
  });

  test("names the project by number or by key, and the key decides when both are there", async () => {
    const trackerVersion = "1.0.14";
    const { projectKey, id } = app.project;
    const byKey = await objectOf(post(path, { projectKey, trackerVersion }));
    expect(byKey["projectID"]).toBe(String(id));
    const both = await objectOf(
      post(path, { projectKey, projectID: limited.projectID, trackerVersion }),
    );
    expect(both["projectID"]).toBe(String(id));
  });

  test("answers the project's own batch limit", async () => {
    const started = await objectOf(app.start({ projectID: limited.projectID }, path));
    expect(started).toMatchObject({ beaconSizeLimit: 4096, projectID: String(limited.id) });
  });

  test("with gzip is read like a plain one", async () => {
    const body = gzipSync(
      JSON.stringify({ projectID: app.projectID, trackerVersion: "1.0.14", userID: "zipped" }),
    );
    const started = await objectOf(app.post(path, body, { "content-encoding": "gzip" }));
    const row = await sessionRow(app, { sessionID: String(started["sessionID"]) });
    expect(row["userID"]).toBe("zipped");
  });

  test("of exactly the size limit is taken, and one byte more is unreadable", async () => {
    expect((await post(path, startOf(JSON_BYTES_MAX))).status).toBe(200);
    const text = `the body is over the limit of ${JSON_BYTES_MAX} bytes`;
    expect(await refusalOf(post(path, startOf(JSON_BYTES_MAX + 1)))).toEqual([400, text]);
  });

  test("that inflates to exactly the size limit is taken, and one byte more is unreadable", async () => {
    const gzip = { "content-encoding": "gzip" };
    const fits = await app.post(path, gzipSync(startOf(JSON_BYTES_MAX)), gzip);
    expect(fits.status).toBe(200);
    const over = app.post(path, gzipSync(startOf(JSON_BYTES_MAX + 1)), gzip);
    const text = `the inflated body is over the limit of ${JSON_BYTES_MAX} bytes`;
    expect(await refusalOf(over)).toEqual([400, text]);
  });

  test.each<[string, string, string]>([
    ["nothing", "", "the body is not valid JSON"],
    ["half an object", '{"projectID":', "the body is not valid JSON"],
    ["a list", "[]", "the body is not a JSON object"],
    ["a number", "7", "the body is not a JSON object"],
    ["null", "null", "the body is not a JSON object"],
    ["a field of another type", '{"userOSVersion":17}', "userOSVersion is not a string"],
    ["a project number in quotes", '{"projectID":"1"}', "projectID is not a number"],
    ["a truth value in quotes", '{"doNotRecord":"no"}', "doNotRecord is not a boolean"],
  ])("with %s for a body is refused before anything else", async (_what, body, text) => {
    expect(await refusalOf(post(path, body))).toEqual([400, text]);
  });

  test("with a truncated gzip body is refused", async () => {
    const cut = gzipSync(startOf(1000)).subarray(0, 60);
    const answer = app.post(path, cut, { "content-encoding": "gzip" });
    expect(await refusalOf(answer)).toEqual([400, "the body is not valid gzip"]);
  });

  test("that names no project is refused, whatever else it lacks", async () => {
    for (const fields of [{}, { projectID: null, projectKey: null }, { trackerVersion: "1.0.14" }])
      expect(await refusalOf(post(path, fields))).toEqual([
        403,
        "projectID or projectKey is missing",
      ]);
  });

  test.each([0, 1, -1, 1.5, 2 ** 52 - 1, 2 ** 53, 2 ** 53 + 2, 1e300])(
    "with the project number %d, which encodes no id, is undecodable",
    async (projectID) => {
      const text = "projectID is not an encoded project id";
      expect(await refusalOf(post(path, { projectID }))).toEqual([422, text]);
    },
  );

  test("with an unknown project is told apart from one with an inactive project", async () => {
    const unknown = [{ projectID: encodeProjectID(4_000_000_000) }, { projectKey: "no-such-key" }];
    for (const fields of unknown)
      expect(await refusalOf(post(path, fields))).toEqual([404, "project not found"]);
    const { projectID, projectKey } = inactive;
    for (const fields of [{ projectID }, { projectKey }])
      expect(await refusalOf(post(path, fields))).toEqual([404, "project is not active"]);
  });

  test("of a web project is refused", async () => {
    const answer = app.start({ projectID: web.projectID }, path);
    expect(await refusalOf(answer)).toEqual([403, "the project is for another platform"]);
  });

  test("of a crawler is refused, but sampling is looked at before", async () => {
    const headers = { "user-agent": "Mozilla/5.0 (compatible; Googlebot/2.1)" };
    const text = "the user agent is not accepted";
    expect(await refusalOf(app.start({}, path, headers))).toEqual([403, text]);
    const [status, sampled] = await refusalOf(
      app.start({ projectID: unsampled.projectID }, path, headers),
    );
    expect([status, sampled === text]).toEqual([403, false]);
  });

  test("without a user agent is refused, and one that nobody knows is not", async () => {
    using connection = await RawConnection.open(app.url);
    const body = JSON.stringify({ projectID: app.projectID, trackerVersion: "1.0.14" });
    const send = async (headers: Record<string, string>) => {
      connection.head(`POST ${path}`, { "content-length": body.length, ...headers });
      connection.write(body);
      return await connection.response();
    };
    for (const headers of [{}, { "user-agent": "" }, { "user-agent": "  " }]) {
      const refused = await send(headers);
      expect([refused.status, JSON.parse(refused.body.toString())]).toEqual([
        403,
        { error: "the user agent is not accepted" },
      ]);
    }
    expect((await send({ "user-agent": "WeMesse/3" })).status).toBe(200);
  });
});

describe("the documented start", () => {
  const path = "/v1/ios/start";

  test("needs a trackerVersion, once the project is known", async () => {
    const missing = [{}, { trackerVersion: null }];
    for (const fields of missing)
      expect(await refusalOf(post(path, { projectID: app.projectID, ...fields }))).toEqual([
        400,
        "trackerVersion is missing",
      ]);
  });

  test.each(["0.0.1", "1", "garbage", "1.0.8"])("takes the version %s", async (trackerVersion) => {
    const started = await objectOf(post(path, { projectID: app.projectID, trackerVersion }));
    const row = await sessionRow(app, { sessionID: String(started["sessionID"]) });
    expect(row["trackerVersion"]).toBe(trackerVersion);
  });

  test("that is not sampled is cancelled", async () => {
    const answer = app.start({ projectID: unsampled.projectID }, path);
    expect(await refusalOf(answer)).toEqual([403, "cancel"]);
  });
});

describe("today's start", () => {
  const path = "/v1/mobile/start";

  test.each(["1.0.9", "v1.0.9", "1.0.9-alpha", "1.0.14-beta", "1.0.10", "1.1", "2", "v10.0"])(
    "takes the version %s",
    async (trackerVersion) => {
      expect((await app.start({ trackerVersion }, path)).status).toBe(200);
    },
  );

  const notAVersion = ["", "v", "-2.0.0", "garbage", "sdk 2.0.0", "2.0.0 beta", "2.0.x", "2.0.0.0"];
  const old = ["1.0.8", "v1.0.8", "1.0.8-99.0.0", "1", "1.0", "0.9.9"];

  test.each([...old, ...notAVersion, null, undefined])(
    "refuses the version %p, which is old or none",
    async (trackerVersion) => {
      const answer = app.start({ trackerVersion }, path);
      expect(await refusalOf(answer)).toEqual([426, "trackerVersion must be at least 1.0.9"]);
    },
  );

  test("of a web project is refused for its platform before its version", async () => {
    const answer = app.start({ projectID: web.projectID, trackerVersion: "0.1" }, path);
    expect(await refusalOf(answer)).toEqual([403, "the project is for another platform"]);
  });

  test("that is not sampled is told the rate, after its version was looked at", async () => {
    const { projectID } = unsampled;
    const text = "capture rate miss, rate: 0";
    expect(await refusalOf(app.start({ projectID }, path))).toEqual([403, text]);
    const [status] = await refusalOf(app.start({ projectID, trackerVersion: "1.0.8" }, path));
    expect(status).toBe(426);
  });

  test("gives a new identity to a user who has none", async () => {
    const first = await objectOf(app.start({}, path));
    const second = await objectOf(app.start({}, path));
    expect(first["userUUID"]).toMatch(UUID_V4);
    expect(second["userUUID"]).toMatch(UUID_V4);
    expect(second["userUUID"]).not.toBe(first["userUUID"]);
    expect(second["sessionID"]).not.toBe(first["sessionID"]);
  });
});
