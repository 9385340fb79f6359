import { beforeAll, describe, expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { RawConnection } from "../support/raw-connection.ts";
import { UPDATE_FIELDS, UpdateApi, plainOf } from "../support/updates.ts";

const NOTHING: [number, string] = [404, "record not found\n"];
const NO_PAGE: [number, string] = [404, "404 page not found\n"];

type Builds = [version: string, abi: string][];

async function publishAll(api: UpdateApi, builds: Builds): Promise<void> {
  for (const [version, abi] of builds)
    await api.published({ version, abi, name: `${version}-${abi}.apk` });
}

async function startWith(builds: Builds): Promise<{ app: TestApp; api: UpdateApi }> {
  const app = await TestApp.start();
  const api = await UpdateApi.of(app);
  await publishAll(api, builds);
  return { app, api };
}

describe("with the floor 2264_00 and the newest build 2267_03", () => {
  const app = TestApp.forTests();
  const api = UpdateApi.forTests(app);

  beforeAll(async () => {
    await publishAll(api, [
      ["2264_00", "arm"],
      ["2267_01", "arm"],
      ["2267_03", "arm64"],
    ]);
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

test("a newest build that is forced itself forces all but those above it", async () => {
  const { app, api } = await startWith([["2268_00", "arm64"]]);
  await using _ = app;
  for (const version of ["2263_05", "2268_00arm64", "garbage"])
    expect([version, (await api.offered(version)).Skipped]).toEqual([version, false]);
  for (const version of ["2268_01", "2269_01arm64", "10000_00"])
    expect([version, (await api.offered(version)).Skipped]).toEqual([version, true]);
});

describe("with 2265_00 published after 2270_00", () => {
  const app = TestApp.forTests();
  const api = UpdateApi.forTests(app);

  beforeAll(async () => {
    await publishAll(api, [
      ["2270_00", "arm64"],
      ["2269_01", "arm"],
      ["2265_00", "arm64"],
      ["2265_00", "arm"],
    ]);
  });

  test.each([
    ["2264_01", "2270_00", false],
    ["2268", "2270_00", false],
    ["2268_01", "2270_00", false],
    ["2268_01arm64", "2270_00", false],
    ["2270_00arm64", "2270_00", false],
    ["2270_01", "2270_00", true],
    ["2270_01arm64", "2270_00", true],
    ["9999_99", "2270_00", true],
    ["10000_01", "2270_00", true],
    ["2264_01arm", "2269_01", false],
    ["2268_01arm", "2269_01", false],
    ["2269_01arm", "2269_01", false],
    ["2269_02arm", "2269_01", true],
    ["2270_01arm", "2269_01", true],
  ])("%s is offered %s, and may skip it: %p", async (version, offered, skipped) => {
    expect(await api.offered(version)).toMatchObject({ Version: offered, Skipped: skipped });
  });
});

test("newest is the greatest version, however often and in whatever order they are published", async () => {
  const { app, api } = await startWith([
    ["2270_01", "arm64"],
    ["2265_01", "arm64"],
  ]);
  await using _ = app;
  const newest = async () => (await api.offered("2200_01")).Version;
  expect(await newest()).toBe("2270_01");
  await api.published({ version: "2265_01", notes: "again" });
  expect(await newest()).toBe("2270_01");
  for (const [version, expected] of [
    ["999_99", "2270_01"],
    ["02270_02", "02270_02"],
    ["2270_10", "2270_10"],
    ["2270_09", "2270_10"],
    ["10000_00", "10000_00"],
    ["9999_99", "10000_00"],
    ["000010000_00", "000010000_00"],
    ["999999999_99", "999999999_99"],
  ] as const) {
    await api.published({ version });
    expect([version, await newest()]).toEqual([version, expected]);
  }
});

test("the floor is the greatest forced build, whenever it was published", async () => {
  const { app, api } = await startWith([
    ["2266_00", "arm64"],
    ["2264_00", "arm"],
    ["2267_01", "arm64"],
  ]);
  await using _ = app;
  for (const [version, skipped] of [
    ["2263_01", false],
    ["2265_01", false],
    ["2266_00arm64", true],
    ["2266_01", true],
  ] as const)
    expect([version, (await api.offered(version)).Skipped]).toEqual([version, skipped]);
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
