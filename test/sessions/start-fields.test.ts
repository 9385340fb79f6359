import { describe, expect, test } from "bun:test";

import { metric, objectOf, sessionRow } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { expectNow } from "../support/now.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const MOBILE_AGENT = { "user-agent": "okhttp/4" };
const UUID = "5f0c0f0e-3a51-4a57-9d4b-6f4d6d1c1b1a";

const app = TestApp.forTests();

/** The row of a session that was started with these fields. */
async function rowOf(
  fields: Record<string, unknown>,
  path = "/v1/ios/start",
  headers: Record<string, string> = {},
): Promise<Record<string, unknown>> {
  const started = await objectOf(app.start(fields, path, headers));
  return await sessionRow(app, { sessionID: String(started["sessionID"]) });
}

describe("the session of an iOS start", () => {
  test("keeps every field that the SDK sent", async () => {
    const timestamp = Date.now() - HOUR_MS;
    const row = await rowOf(
      {
        trackerVersion: "1.0.14",
        revID: "4711",
        userUUID: UUID,
        userID: "ada@example.com",
        userOSVersion: "17.4",
        userDevice: "iPhone15,2",
        userDeviceType: 0,
        platform: "ios",
        timestamp,
        timezone: "UTC+02:00",
        deviceMemory: 5_912_345,
        width: 393,
        height: 852,
        performance: { batteryLevel: 80, thermalState: 0, orientation: null },
      },
      "/v1/ios/start",
      { "user-agent": "WeMesse/3 CFNetwork/1494.0.7 Darwin/23.4.0" },
    );
    expect(row).toMatchObject({
      sessionID: expect.any(String),
      projectId: app.project.id,
      recorded: true,
      startedAt: new Date(timestamp).toISOString(),
      platform: "ios",
      trackerVersion: "1.0.14",
      revID: "4711",
      userUUID: UUID,
      userID: "ada@example.com",
      userOS: "IOS",
      userOSVersion: "17.4",
      userBrowser: "WeMesse",
      userDevice: "iPhone 14 Pro",
      userDeviceType: "mobile",
      userCountry: "UN",
      userState: "",
      userCity: "",
      timezone: "UTC+02:00",
      deviceMemory: 5_912_345,
      width: 393,
      height: 852,
      performance: { batteryLevel: 80, thermalState: 0, orientation: null },
      images: 0,
    });
    expect(row["batches"]).toMatchObject({ count: 0, messages: 0, bytes: 0, quarantined: 0 });
  });

  test("of a model that has no name yet keeps the model", async () => {
    expect(await rowOf({ userDevice: "iPad99,1" })).toMatchObject({
      userDevice: "iPad99,1",
      userDeviceType: "tablet",
    });
  });

  test("has null for what was absent or null", async () => {
    const names = ["revID", "userID", "userOSVersion", "userDevice", "timezone", "deviceMemory"];
    const nulls = Object.fromEntries(
      [...names, "token", "timestamp", "platform", "doNotRecord", "userUUID"].map((name) => [
        name,
        null,
      ]),
    );
    for (const fields of [{}, nulls, { ...nulls, performance: null, width: null, height: null }]) {
      const row = await rowOf(fields);
      for (const name of [...names, "performance", "width", "height"]) expect(row[name]).toBe(null);
      expect(row).toMatchObject({ recorded: true, platform: "ios", userDeviceType: "other" });
      expect(row["userUUID"]).toBeString();
    }
  });

  test("ignores fields that nobody knows", async () => {
    const row = await rowOf({ surprise: { deep: [1] }, __proto__: null, constructor: "x" });
    expect(row).not.toHaveProperty("surprise");
  });
});

describe("the session of an Android start", () => {
  test("has the device and its type as they were sent", async () => {
    const row = await rowOf(
      { platform: "android", userDevice: "shiba", userDeviceType: "tablet", revID: "N/A" },
      "/v1/mobile/start",
      { "user-agent": "Dalvik/2.1.0 (Linux; U; Android 14; Pixel 8 Build/UQ1A)" },
    );
    expect(row).toMatchObject({
      platform: "android",
      userOS: "Android",
      userDevice: "shiba",
      userDeviceType: "tablet",
      revID: "N/A",
    });
  });

  test("of any platform but ios is Android's", async () => {
    expect(await rowOf({ platform: "harmony" }, "/v1/mobile/start")).toMatchObject({
      userOS: "Android",
    });
  });
});

describe("numbers that Go's decoder would refuse", () => {
  test.each([
    [390.5, 391],
    [390.4, 390],
    [-5, 0],
    [-0.2, 0],
    [1e300, 2 ** 31 - 1],
    [2 ** 31, 2 ** 31 - 1],
  ])("%d is kept as %d", async (sent, kept) => {
    expect(await rowOf({ width: sent, height: sent, deviceMemory: sent })).toMatchObject({
      width: kept,
      height: kept,
      deviceMemory: kept,
    });
  });

  test("an overflowing literal is clamped, too", async () => {
    const body = `{"projectID":${app.projectID},"trackerVersion":"1","width":1e999,"timestamp":1e999}`;
    const started = await objectOf(app.post("/v1/ios/start", body));
    const row = await sessionRow(app, { sessionID: String(started["sessionID"]) });
    expect(row["width"]).toBe(2 ** 31 - 1);
  });
});

describe("the time of the start", () => {
  test.each<[string, number]>([
    ["an hour ago", -HOUR_MS],
    ["29 days ago", -29 * DAY_MS],
    ["in 23 hours", 23 * HOUR_MS],
  ])("is the client's when it says %s, in whole milliseconds", async (_when, offsetMs) => {
    const timestamp = Date.now() + offsetMs;
    const row = await rowOf({ timestamp: timestamp + 0.75 });
    expect(row["startedAt"]).toBe(new Date(timestamp).toISOString());
  });

  test.each<[string, number]>([
    ["1970", 0],
    ["before 1970", -5],
    ["31 days ago", Date.now() - 31 * DAY_MS],
    ["in 25 hours", Date.now() + 25 * HOUR_MS],
    ["never", 1e300],
  ])("is the server's when the client says %s", async (_when, timestamp) => {
    const before = Date.now();
    const startedMs = Date.parse(String((await rowOf({ timestamp }))["startedAt"]));
    expectNow(startedMs, before);
  });
});

describe("the user's UUID", () => {
  test.each([UUID, UUID.toUpperCase(), `urn:uuid:${UUID}`, `{${UUID}}`, UUID.replaceAll("-", "")])(
    "%s comes back as it was sent and is kept in canonical form",
    async (userUUID) => {
      const started = await objectOf(app.start({ userUUID }));
      expect(started["userUUID"]).toBe(userUUID);
      const row = await sessionRow(app, { sessionID: String(started["sessionID"]) });
      expect(row["userUUID"]).toBe(UUID);
    },
  );

  test.each(["", "me", `${UUID}0`, UUID.slice(1), `${UUID.slice(0, -1)}g`, "0".repeat(300)])(
    "%p is none, so the answer brings a new one, which the row has",
    async (userUUID) => {
      const started = await objectOf(app.start({ userUUID }));
      expect(started["userUUID"]).toMatch(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
      const row = await sessionRow(app, { sessionID: String(started["sessionID"]) });
      expect(row["userUUID"]).toBe(String(started["userUUID"]));
    },
  );
});

describe("text that a database cannot keep", () => {
  test("loses its NULs and has replacement characters for half surrogate pairs", async () => {
    const row = await rowOf({ userID: "a\u0000b\ud800c", revID: "\u0000", timezone: "\udfff" });
    expect(row).toMatchObject({ userID: "ab\ufffdc", revID: "", timezone: "\ufffd" });
  });

  test("in names and values of performance leaves the session and the list readable", async () => {
    const performance = { "a\u0000b": "\u0000", "\ud800": ["\udc00", { "\u0000": "😀" }] };
    const row = await rowOf({ performance });
    expect(JSON.stringify(row["performance"])).toContain("😀");
    await objectOf(app.fetch(`/v1/sessions?projectId=${app.project.id}`));
  });

  test("over 255 characters is cut without tearing a surrogate pair", async () => {
    const row = await rowOf({ userID: `${"x".repeat(254)}😀😀`, revID: "r".repeat(1000) });
    expect(String(row["revID"])).toBe("r".repeat(255));
    expect(String(row["userID"]).startsWith("x".repeat(254))).toBe(true);
    expect(String(row["userID"]).isWellFormed()).toBe(true);
  });
});

test("performance over its bounds is left out and counted, and the session starts all the same", async () => {
  const series = "floodgate_start_performance_dropped_total";
  const before = await metric(app, series);
  const kept = { note: "x".repeat(16 * 1024 - 11) };
  expect((await rowOf({ performance: kept }))["performance"]).toEqual(kept);
  // "é" has two bytes in UTF-8.
  const longer = { note: "é".repeat(8 * 1024 - 5) };
  expect(
    (await rowOf({ performances: longer }, "/v1/mobile/start", MOBILE_AGENT))["performance"],
  ).toBe(null);
  const nested = (depth: number): unknown => (depth === 0 ? 1 : [nested(depth - 1)]);
  expect((await rowOf({ performance: nested(100) }))["performance"]).toEqual(nested(100));
  expect((await rowOf({ performance: { a: nested(100) } }))["performance"]).toBe(null);
  expect(await metric(app, series)).toBe(before + 2);
});

test("however deep performance is nested, the session starts and can be read back", async () => {
  for (const depth of [100, 1000, 2000, 3000, 4000, 6000, 10_000, 30_000, 65_000]) {
    const performance = "[".repeat(depth) + "]".repeat(depth);
    const fields = `"projectID":${app.projectID},"trackerVersion":"1","performance":${performance}`;
    const { sessionID } = await objectOf(app.post("/v1/ios/start", `{${fields}}`));
    await sessionRow(app, { sessionID: String(sessionID) });
  }
  await objectOf(app.fetch(`/v1/sessions?projectId=${app.project.id}&limit=1000`));
});
