import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";

import { type Recipients, parseRecipients } from "../../src/devices/recipients.ts";
import { Devices } from "../../src/devices/service.ts";
import { PROVIDERS, type ProviderName } from "../../src/platform/config/push-config.ts";
import { type Sql, openDatabase } from "../../src/platform/database/database.ts";
import { DEVICE_PLATFORM } from "../../src/platform/device-platforms.ts";
import { AppError } from "../../src/platform/errors.ts";
import { freshDatabase } from "../support/postgres.ts";

const ALL = recipients({});
const RED = recipients({ key: "colour", operator: "str_eq", value: "red" });
const fcm = PROVIDERS.fcm.sendPlatform;
const apns = PROVIDERS.apns.sendPlatform;
const { unknown, android, ios, web } = DEVICE_PLATFORM;

let databaseUrl: string;
let sql: Sql;
let devices: Devices;

beforeAll(async () => {
  databaseUrl = await freshDatabase();
  sql = openDatabase(databaseUrl, { connections: 8 });
  devices = new Devices(sql);
});

afterAll(async () => {
  await sql.end();
});

beforeEach(async () => {
  await sql`truncate devices, device_numbers`;
});

function recipients(conditions: unknown): Recipients {
  return parseRecipients({ conditions, external_ids: undefined });
}

async function put(externalId: string, sendPlatform: number = fcm, devicePlatform: number = ios) {
  return await devices.upsert({
    external_id: externalId,
    push_token: "t",
    send_platform: sendPlatform,
    device_platform: devicePlatform,
  });
}

describe("there is one to send to", () => {
  test.each<[ProviderName, number, boolean]>([
    ["fcm", android, true],
    ["fcm", ios, true],
    ["fcm", web, true],
    ["fcm", unknown, false],
    ["apns", ios, true],
    ["apns", android, true],
    ["apns", web, false],
    ["apns", unknown, false],
  ])("through %s on device platform %d: %j", async (provider, devicePlatform, reached) => {
    await put("a", PROVIDERS[provider].sendPlatform, devicePlatform);
    expect(await devices.has(ALL, provider)).toBe(reached);
    expect(await devices.has(ALL, provider === "fcm" ? "apns" : "fcm")).toBe(false);
  });

  test("unless its token is known to be invalid, until there is another one", async () => {
    await put("a");
    await sql`update devices set token_invalid = true`;
    expect(await devices.has(ALL, "fcm")).toBe(false);
    await put("a");
    expect(await devices.has(ALL, "fcm")).toBe(true);
  });

  test("among those that meet the conditions", async () => {
    await put("a");
    expect(await devices.has(RED, "fcm")).toBe(false);
    await devices.setProperties("a", [{ key: "colour", value: "red" }]);
    expect(await devices.has(RED, "fcm")).toBe(true);
  });
});

test("what takes too long to find is told as that, and whether there is one is left open", async () => {
  await put("a");
  const impatient = openDatabase(databaseUrl, { connections: 1 });
  await impatient`set statement_timeout = 30`;
  const slow = new Devices(impatient);
  await sql.begin(async (tx) => {
    await tx`lock table devices in access exclusive mode`;
    const page = { start: 0, size: 10, orderBys: [] };
    const searched = slow.search({ ...page, ...ALL, externalIds: ["a"] });
    const named = slow.search({ ...page, ...RED, externalIds: ["a"] });
    const refused = [searched, named, slow.count(ALL)];
    for (const result of await Promise.allSettled(refused))
      expect(result).toMatchObject({
        status: "rejected",
        reason: new AppError("unavailable", "finding the devices took too long"),
      });
    expect(await slow.has(ALL, "fcm")).toBe(false);
  });
  await impatient.end();
});

describe("putting a device", () => {
  test("that is known takes no id", async () => {
    const { id } = await put("a");
    for (let nth = 0; nth < 5; nth++) expect((await put("a", apns)).id).toBe(id);
    expect((await put("b")).id).toBe(id + 1);
  });

  test("at the same time as others do, and set its properties, loses nothing", async () => {
    const names = ["a", "b", "c"];
    for (const name of names) {
      const made = await Promise.all(Array.from({ length: 8 }, async () => await put(name)));
      expect(new Set(made.map(({ id }) => id)).size).toBe(1);
      const keys = Array.from({ length: 12 }, (_, nth) => `k${10 + nth}`);
      await Promise.all([
        ...keys.map(async (key) => await devices.setProperties(name, [{ key, value: 1 }])),
        ...keys.map(async () => await put(name, apns, android)),
      ]);
      expect(await devices.get(name)).toMatchObject({
        send_platform: apns,
        device_platform: android,
        device_properties: keys.map((key) => ({ [key]: 1 })),
      });
    }
  });
});
