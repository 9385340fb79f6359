import { afterAll, beforeAll, describe, expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { RawConnection } from "../support/raw-connection.ts";
import { UPDATE_FIELDS, UpdateApi, plainOf } from "../support/updates.ts";

const NOTHING: [number, string] = [404, "record not found\n"];
const NO_PAGE: [number, string] = [404, "404 page not found\n"];

async function startWith(
  builds: [version: string, abi: string][],
  env: Record<string, string> = {},
): Promise<{ app: TestApp; api: UpdateApi }> {
  const app = await TestApp.start({ env });
  const api = await UpdateApi.of(app);
  for (const [version, abi] of builds)
    await api.published({ version, abi, name: `${version}-${abi}.apk` });
  return { app, api };
}

describe("with the floor 2264_00 and the newest build 2267_03", () => {
  let app: TestApp;
  let api: UpdateApi;

  beforeAll(async () => {
    ({ app, api } = await startWith([
      ["2264_00", "arm"],
      ["2267_01", "arm"],
      ["2267_03", "arm64"],
    ]));
  });

  afterAll(async () => {
    await app[Symbol.asyncDispose]();
  });

  test.each([
    ["2263_05arm64", false, "it is below the floor"],
    ["2264_00arm64", true, "the floor with the ABI is past"],
    ["2264_00", false, "the floor without an ABI is not past"],
    ["2264_01", true, "it is above the floor"],
    ["2263_99", false, "it is below the floor"],
    ["2263_05arm", false, "the floor counts for any ABI"],
    ["2264_00arm", true, "the floor with the ABI is past"],
    ["2267_03arm64", true, "who has the newest is offered it again"],
    ["2267_03", true, "who has the newest is offered it again"],
    ["9999_99", true, "so is who has a newer one"],
  ])("%s may skip the offer: %p, because %s", async (version, skipped) => {
    const offer = await api.offered(version);
    expect(offer.Skipped).toBe(skipped);
    expect(offer.Version).toBe(version.endsWith("arm") ? "2267_01" : "2267_03");
  });

  test.each([
    ["10000_00", true, "five digits are more than four"],
    ["10000_00arm64", true, "five digits are more than four"],
    ["999_00", false, "three digits are fewer than four"],
    ["02264_00", false, "zeros before the number count nothing"],
    ["02264_00arm64", true, "zeros before the number count nothing"],
    ["10000000000000000000_00", true, "a number of any length is a number"],
    ["9007199254740993_01arm64", true, "a number of any length is a number"],
  ])("%s is compared as numbers: %p, because %s", async (version, skipped) => {
    expect((await api.offered(version)).Skipped).toBe(skipped);
  });

  test.each([
    ["1zzz", false],
    ["2264", false],
    ["2264_0", false],
    ["2264_000", true],
    ["2264-05", false],
    ["2264_0x", true],
    ["garbage", true],
    ["_00", true],
    ["%D0%B2", true],
  ])("%s is no version, and compared byte by byte: %p", async (version, skipped) => {
    expect(await api.offered(version)).toMatchObject({ Skipped: skipped, TargetABI: "arm64" });
  });

  test.each([
    ["2267_00", "arm64"],
    ["2267_00arm64", "arm64"],
    ["2267_00arm", "arm"],
    ["10000_00arm", "arm"],
    ["10000_00arm64", "arm64"],
    ["2267_00x86", "arm64"],
    ["2267_00x86_64", "arm64"],
    ["2267_00ARM", "arm64"],
    ["2267_00armarm", "arm64"],
    ["2267_00-arm", "arm64"],
    ["arm", "arm64"],
  ])("%s asks for %s", async (version, abi) => {
    expect((await api.offered(version)).TargetABI).toBe(abi);
  });

  test("the path is decoded", async () => {
    expect((await api.offered("2263%5F05ar%6D")).TargetABI).toBe("arm");
  });

  test("an answer is the documented object, typed as JSON, with the hash of the build", async () => {
    const answer = await api.check("2263_05");
    expect(answer.status).toBe(200);
    expect(answer.headers.get("content-type")).toBe("application/json; charset=utf-8");
    const update: Record<string, unknown> = Object(await answer.json());
    expect(Object.keys(update)).toEqual(UPDATE_FIELDS);
    expect(update).toMatchObject({ Id: 3, Name: "2267_03-arm64.apk", Message: "", Uploads: 0 });
    expect(answer.headers.get("x-build-sha256")).toBe(String(update["SHA256"]));
    expect(answer.headers.get("x-build-signature")).toBeNull();
  });

  test("no signature is asked for, and a wrong one is not looked at", async () => {
    for (const signature of ["wrong", ""])
      expect((await api.check("2263_05", "", { signature })).status).toBe(200);
  });

  test("what else is in the query changes nothing", async () => {
    const plain = await api.offered("2263_05arm");
    for (const query of ["?", "?lang=ru", "?x=1&x=2&channels=beta", "?version=9999_99"])
      expect(await api.offered("2263_05arm", query)).toEqual(plain);
  });

  test("an empty version is no page, nor is what lies deeper", async () => {
    for (const path of [
      "/api/v1/updates/",
      "/api/v1/updates/2263_05/x",
      "/api/v1",
      "/api/v2/users",
    ])
      expect([path, await plainOf(api.get(path))]).toEqual([path, NO_PAGE]);
  });

  test("doubled slashes are one", async () => {
    const { status } = await api.get("//api//v1/updates///2263_05arm");
    expect(status).toBe(200);
  });

  test("other methods get 405 and nothing more, HEAD too", async () => {
    const refused: [method: string, path: string][] = [
      ["POST", "/api/v1/updates/2263_05"],
      ["PUT", "/api/v1/updates/2263_05"],
      ["DELETE", "/api/v1/updates/2263_05"],
      ["PUT", "/api/v1/updates"],
      ["PATCH", "/api/v1/updates"],
      ["DELETE", "/api/v1/updates"],
    ];
    for (const [method, path] of refused) {
      const answer = await app.fetch(path, { method });
      expect([method, path, answer.status, await answer.text()]).toEqual([method, path, 405, ""]);
    }
    using connection = await RawConnection.open(app.url);
    for (const path of ["/api/v1/updates/2263_05", "/api/v1/updates"]) {
      connection.head(`HEAD ${path}`);
      const { status, headers } = await connection.response({ bodyless: true });
      expect([path, status, headers.get("content-length")]).toEqual([path, 405, "0"]);
    }
  });
});

test("who is on any version is forced to a newest build that is forced itself", async () => {
  const { app, api } = await startWith([["2268_00", "arm64"]]);
  await using _ = app;
  for (const version of ["2263_05", "2268_00arm64", "2269_01arm64", "garbage"])
    expect((await api.offered(version)).Skipped).toBe(false);
});

test("newest is the build published last, whatever its version, and publishing again moves none", async () => {
  const { app, api } = await startWith([
    ["2270_01", "arm64"],
    ["2265_01", "arm64"],
  ]);
  await using _ = app;
  expect((await api.offered("2270_01")).Version).toBe("2265_01");
  await api.published({ version: "2270_01", notes: "again" });
  expect((await api.offered("2270_01")).Version).toBe("2265_01");
});

test("the floor is the forced build published last, also when an older one is greater", async () => {
  const { app, api } = await startWith([
    ["2266_00", "arm64"],
    ["2264_00", "arm"],
    ["2267_01", "arm64"],
  ]);
  await using _ = app;
  expect((await api.offered("2265_01")).Skipped).toBe(true);
  expect((await api.offered("2263_01")).Skipped).toBe(false);
});

test("a floor of five digits forces who has four, and not the other way round", async () => {
  const { app, api } = await startWith([
    ["10000_00", "arm"],
    ["10001_01", "arm64"],
  ]);
  await using _ = app;
  expect((await api.offered("9999_00arm64")).Skipped).toBe(false);
  expect((await api.offered("10000_00arm64")).Skipped).toBe(true);
  expect((await api.offered("10000_00")).Skipped).toBe(false);
  expect((await api.offered("10000_01")).Skipped).toBe(true);
});

test("without a forced build nothing is forced", async () => {
  const { app, api } = await startWith([["2267_01", "arm64"]]);
  await using _ = app;
  for (const version of ["0001_00", "2267_01arm64", "garbage"])
    expect((await api.offered(version)).Skipped).toBe(true);
});

test("nothing is offered where there is no build for the ABI", async () => {
  const { app, api } = await startWith([]);
  await using _ = app;
  expect(await plainOf(api.check("2263_05"))).toEqual(NOTHING);
  await api.published({ version: "2264_00", abi: "" });
  await api.published({ version: "2264_00", abi: "x86" });
  for (const version of ["2263_05", "2263_05x86", "2263_05arm"])
    expect(await plainOf(api.check(version))).toEqual(NOTHING);
  await api.published({ version: "2265_01", abi: "arm" });
  expect(await plainOf(api.check("2263_05"))).toEqual(NOTHING);
  // A build without an ABI is offered to nobody, but it is a floor.
  expect((await api.offered("2263_05arm")).Skipped).toBe(false);
});

describe("links", () => {
  const MIRROR = "https://mirror.example/wemesse/source";
  const OWN = "https://own.example/source";

  test("lead to the mirror flat and to the own server with ABI and version, nothing encoded", async () => {
    await using app = await TestApp.start({ env: { dest_uri: MIRROR, source_uri: OWN } });
    const api = await UpdateApi.of(app);
    const build = { version: "2267_01", name: "WeMesse 1.0 ü.apk" };
    const published = await api.published(build);
    expect(published.URI).toBe(`${OWN}/arm64/2267_01/WeMesse 1.0 ü.apk`);
    expect((await api.list()).map(({ URI }) => URI)).toEqual([published.URI]);
    expect((await api.offered("2263_05")).URI).toBe(`${MIRROR}/WeMesse 1.0 ü.apk`);
    const { URI } = await api.published({ ...build, abi: "" });
    expect(URI).toBe(`${OWN}//2267_01/WeMesse 1.0 ü.apk`);
  });

  test("lead to this server, as the client named it, where nothing is configured", async () => {
    const { app, api } = await startWith([["2267_01", "arm64"]]);
    await using _ = app;
    const name = "2267_01-arm64.apk";
    expect((await api.offered("2263_05")).URI).toBe(`${app.url}/source/${name}`);
    const [listed] = await api.list();
    expect(listed?.URI).toBe(`${app.url}/source/arm64/2267_01/${name}`);
    for (const uri of [(await api.offered("2263_05")).URI, listed?.URI ?? ""])
      expect(await (await fetch(uri)).text()).toBe("a build of 2267_01");
    using connection = await RawConnection.open(app.url);
    connection.head("GET /api/v1/updates/2263_05", { host: "updates.example:8443" });
    const { URI } = JSON.parse((await connection.response()).body.toString());
    expect(URI).toBe(`http://updates.example:8443/source/${name}`);
  });

  test("follow what a trusted proxy says of scheme and host, and nobody else", async () => {
    const forwarded = { "x-forwarded-proto": "https", "x-forwarded-host": "builds.example" };
    for (const proxies of ["127.0.0.0/8", "10.0.0.0/8"]) {
      const { app, api } = await startWith([["2267_01", "arm64"]], { TRUSTED_PROXIES: proxies });
      await using _ = app;
      const base = proxies.startsWith("127") ? "https://builds.example" : app.url;
      const { URI } = await api.offered("2263_05", "", forwarded);
      expect(URI).toBe(`${base}/source/2267_01-arm64.apk`);
    }
  });
});
