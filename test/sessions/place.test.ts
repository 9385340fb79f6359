import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";

import { objectOf, sessionRow } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { RawConnection } from "../support/raw-connection.ts";
import { cityRecord, encodeMmdb } from "../support/mmdb.ts";

const BERLIN = { userCountry: "DE", userState: "Land Berlin", userCity: "Berlin" };
const PARIS = { userCountry: "FR", userState: "Île-de-France", userCity: "Paris" };
const NOWHERE = { userCountry: "UN", userState: "", userCity: "" };
const IN_BERLIN = "203.0.113.9";
const IN_BERLIN_6 = "2001:db8:1::9";
const IN_PARIS = "198.51.100.7";

let folder: string;
let path: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "floodgate-place-"));
  path = join(folder, "city.mmdb");
  const networks = {
    "203.0.113.0/24": cityRecord("DE", "Land Berlin", "Berlin"),
    "2001:db8:1::/48": cityRecord("DE", "Land Berlin", "Berlin"),
    "198.51.100.0/24": cityRecord("FR", "Île-de-France", "Paris"),
  };
  await writeFile(path, encodeMmdb(networks));
});

afterAll(async () => {
  await rm(folder, { recursive: true });
});

async function placeOf(app: TestApp, headers: Record<string, string>): Promise<object> {
  const started = await objectOf(app.start({}, "/v1/ios/start", headers));
  const row = await sessionRow(app, { sessionID: String(started["sessionID"]) });
  const { userCountry, userState, userCity } = row;
  return { userCountry, userState, userCity };
}

describe("behind a trusted proxy a session is", () => {
  let app: TestApp;

  beforeAll(async () => {
    app = await TestApp.start({ env: { GEOIP_DB: path } });
  });

  afterAll(async () => {
    await app[Symbol.asyncDispose]();
  });

  test.each<[string, string, object]>([
    ["where the forwarded address is", IN_BERLIN, BERLIN],
    ["where the nearest address is that no trusted proxy has", `${IN_BERLIN}, ${IN_PARIS}`, PARIS],
    ["found past trusted proxies", `${IN_BERLIN}, 127.0.0.9, ::1`, BERLIN],
    ["found by an address written as IPv6", `::ffff:${IN_BERLIN}`, BERLIN],
    ["found without blanks", `${IN_PARIS},${IN_BERLIN}`, BERLIN],
    ["found without its port", `${IN_BERLIN}:51008`, BERLIN],
    ["found without quotes", `"${IN_BERLIN}"`, BERLIN],
    ["found without quotes and a port", `"${IN_BERLIN}:443"`, BERLIN],
    ["found in brackets with a port", `[::ffff:${IN_BERLIN}]:443`, BERLIN],
    ["found in brackets and quotes", `"[${IN_BERLIN_6}]"`, BERLIN],
    ["found by a plain IPv6 address", IN_BERLIN_6, BERLIN],
    ["found by an IPv6 address with a zone", `[${IN_BERLIN_6}%eth0]:443`, BERLIN],
    ["found past trusted proxies with ports", `${IN_BERLIN}:1, 127.0.0.9:80, "[::1]:443"`, BERLIN],
    ["found past empty items", `${IN_BERLIN}, , ,`, BERLIN],
    ["found with garbage behind its back", `unknown, "[:", ${IN_BERLIN}:1`, BERLIN],
    ["nowhere when a trusted proxy was told garbage", `${IN_BERLIN}, _hidden, ::1`, NOWHERE],
    ["nowhere by an address in octal", "0313.0.0161.011", NOWHERE],
    ["nowhere by a single number", "3405803785", NOWHERE],
    ["nowhere by an address and more", `${IN_BERLIN}:x`, NOWHERE],
    ["nowhere by half a bracket", `[${IN_BERLIN_6}`, NOWHERE],
    ["nowhere when the address is in no network", "192.0.2.1", NOWHERE],
    ["nowhere when the nearest address is garbage", `${IN_BERLIN}, unknown`, NOWHERE],
    ["nowhere when the header is empty", "", NOWHERE],
  ])("%s", async (_fact, forwarded, place) => {
    expect(await placeOf(app, { "x-forwarded-for": forwarded })).toEqual(place);
  });

  test("found in several headers, the last of which is the nearest", async () => {
    const body = JSON.stringify({ projectID: app.projectID, trackerVersion: "1.0.14" });
    using connection = await RawConnection.open(app.url);
    connection.write(
      `POST /v1/ios/start HTTP/1.1\r\nhost: a\r\nuser-agent: App/1\r\nx-forwarded-for: ${IN_PARIS}\r\nx-forwarded-for: ${IN_BERLIN}:1\r\n` +
        `X-Forwarded-For: 127.0.0.9\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
    );
    const { sessionID } = JSON.parse((await connection.response()).body.toString());
    expect(await sessionRow(app, { sessionID })).toMatchObject(BERLIN);
  });

  test("nowhere by other headers or none", async () => {
    expect(await placeOf(app, { "x-real-ip": IN_BERLIN, forwarded: `for=${IN_BERLIN}` })).toEqual(
      NOWHERE,
    );
    expect(await placeOf(app, {})).toEqual(NOWHERE);
  });
});

test("what a peer forwards that is no trusted proxy is not believed", async () => {
  await using app = await TestApp.start({ env: { GEOIP_DB: path, TRUSTED_PROXIES: "10.0.0.0/8" } });
  expect(await placeOf(app, { "x-forwarded-for": IN_BERLIN })).toEqual(NOWHERE);
});

test.each([
  ["ranges", `127.0.0.0/8, ${IN_PARIS}/32`],
  ["addresses", `127.0.0.1, ${IN_PARIS}`],
])("a chain of proxies that are configured by their %s is skipped", async (_by, trusted) => {
  await using app = await TestApp.start({ env: { GEOIP_DB: path, TRUSTED_PROXIES: trusted } });
  const chain = `${IN_PARIS}, ${IN_BERLIN}, ${IN_PARIS}`;
  expect(await placeOf(app, { "x-forwarded-for": chain })).toEqual(BERLIN);
});
