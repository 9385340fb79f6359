import { describe, expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { UpdateApi, aVersion, plainOf } from "../support/updates.ts";

const NOTHING: [number, string] = [404, "record not found\n"];
const NO_BUILD: [number, string] = [404, "no such build\n"];

const app = TestApp.forTests();
const api = UpdateApi.forTests(app);
let channels = 0;

/** Keeps a build out of the default channel, which clients of every other channel fall back to. */
const ELSEWHERE = { fields: { channel: "elsewhere" } };

/** A channel of its own, whose builds no other test is offered. */
function aChannel(): string {
  return `channel-${channels++}`;
}

describe("a change", () => {
  test("of each field is answered with the build, listed and offered", async () => {
    const update = await api.published({ notes: "before", ...ELSEWHERE });
    const channel = aChannel();
    const signature = Buffer.alloc(64, 5).toString("base64");
    for (const [change, changed] of [
      [{ channel }, { Channel: channel }],
      [{ rollout: 99.5 }, { Rollout: 99.5 }],
      [{ rollout: 100 }, { Rollout: 100 }],
      [{ floorPerABI: true }, { FloorPerABI: true }],
      [{ floorPerABI: false }, { FloorPerABI: false }],
      [{ signature }, { Signature: signature }],
      [{ appNotes: "after\n✓" }, { Message: "after\n✓" }],
      [{ appNotes: "" }, { Message: "" }],
      [{ withdrawn: true }, { Withdrawn: true }],
      [
        { withdrawn: false, appNotes: "both" },
        { Withdrawn: false, Message: "both" },
      ],
    ]) {
      Object.assign(update, changed);
      const answer = await api.patch(update.Id, change);
      expect(answer.headers.get("content-type")).toBe("application/json; charset=utf-8");
      expect([change, await answer.json()]).toEqual([change, update]);
      expect((await api.list()).find(({ Id }) => Id === update.Id)).toEqual(update);
    }
    const offer = await api.offered("0001_01", `?channel=${channel}`);
    expect(offer).toMatchObject({ Id: update.Id, Message: "both", Signature: signature });
  });

  test("leaves the bytes as they are", async () => {
    const update = await api.published(ELSEWHERE);
    await api.patched(update.Id, { rollout: 0, withdrawn: false });
    expect(await (await api.download(update)).text()).toBe(`a build of ${update.Version}`);
  });

  test.each([
    ["channel", ["Beta", "", "-a", "a".repeat(33), 5, null, "a b"]],
    ["rollout", [-0.1, 100.1, "50", null, true]],
    ["withdrawn", ["true", 1, null]],
    ["floorPerABI", ["true", 0, null]],
    ["signature", ["abc", Buffer.alloc(63).toString("base64"), 5, null]],
    ["appNotes", [5, null, "n".repeat(65_537), "a\0b"]],
  ])("with a bad %s is refused by its name, and changes nothing", async (field, values) => {
    const update = await api.published(ELSEWHERE);
    for (const value of values) {
      const [status, text] = await plainOf(
        api.patch(update.Id, { floorPerABI: !update.FloorPerABI, [field]: value }),
      );
      expect([value, status]).toEqual([value, 400]);
      expect(text).toMatch(new RegExp(`^[^\\n]*${field}[^\\n]*\\n$`));
    }
    expect((await api.list()).find(({ Id }) => Id === update.Id)).toEqual(update);
  });

  test("that is no object is refused", async () => {
    const { Id } = await api.published(ELSEWHERE);
    for (const body of ["null", "[]", "5", '"text"'])
      expect([body, await plainOf(api.patch(Id, body))]).toEqual([
        body,
        [400, "the body must be an object\n"],
      ]);
    for (const body of ["", "x", "{", '{"rollout":1}}', "\ufeff\0"])
      expect([body, await plainOf(api.patch(Id, body))]).toEqual([
        body,
        [400, "the body is not valid JSON\n"],
      ]);
    const long = JSON.stringify({ appNotes: "n".repeat(2 ** 20) });
    expect(await plainOf(api.patch(Id, long))).toEqual([
      413,
      "the body is over the limit of 1048576 bytes\n",
    ]);
  });

  test.each(["999999", "0", "-1", "1.5", "abc", "2264_00", "9223372036854775808", "%31%00"])(
    "of the unknown build %s is 404",
    async (id) => {
      expect(await plainOf(api.patch(id, { rollout: 5 }))).toEqual(NO_BUILD);
    },
  );
});

describe("withdrawing", () => {
  test("a build rolls back to the one before, and undoing it brings it back", async () => {
    const channel = aChannel();
    const offered = async () => (await api.offered("0001_01", `?channel=${channel}`)).Version;
    const old = await api.published({ fields: { channel } });
    const bad = await api.published({ fields: { channel } });
    expect(await offered()).toBe(bad.Version);
    await api.patched(bad.Id, { withdrawn: true });
    expect(await offered()).toBe(old.Version);
    await api.patched(old.Id, { withdrawn: true });
    expect(await plainOf(api.check("0001_01", `?channel=${channel}`))).toEqual(NOTHING);
    await api.patched(bad.Id, { withdrawn: false });
    expect(await offered()).toBe(bad.Version);
  });

  test("a forced build forces nobody", async () => {
    const channel = aChannel();
    const skipped = async () => (await api.offered("1000_01", `?channel=${channel}`)).Skipped;
    const floor = await api.published({ version: aVersion("00"), fields: { channel } });
    await api.published({ version: "5000_01", fields: { channel } });
    expect(await skipped()).toBe(false);
    await api.patched(floor.Id, { withdrawn: true });
    expect(await skipped()).toBe(true);
    await api.patched(floor.Id, { withdrawn: false });
    expect(await skipped()).toBe(false);
  });

  test("holds when the build is published as withdrawn", async () => {
    const channel = aChannel();
    const fields = { channel, withdrawn: "true" };
    const update = await api.published({ fields });
    expect(update.Withdrawn).toBe(true);
    expect(await plainOf(api.check("0001_01", `?channel=${channel}`))).toEqual(NOTHING);
  });
});

describe("a channel", () => {
  test("is asked for exactly, and is `stable` where nobody says", async () => {
    await using other = await TestApp.start();
    const own = await UpdateApi.of(other);
    const beta = await own.published({ version: "3000_00", fields: { channel: "beta" } });
    expect(await plainOf(own.check("0001_01"))).toEqual(NOTHING);
    const stable = await own.published({ version: "2000_01" });
    expect(stable.Channel).toBe("stable");
    const idFor = async (query: string) => (await own.offered("2500_01", query)).Id;
    expect(await idFor("")).toBe(stable.Id);
    expect(await idFor("?channel=stable")).toBe(stable.Id);
    expect(await idFor("?channel=beta")).toBe(beta.Id);
    for (const channel of ["", "Beta", "bet", "beta%20", "stable,beta", "%00", "c".repeat(100)])
      expect([channel, await idFor(`?channel=${channel}`)]).toEqual([channel, stable.Id]);
    // A forced build of another channel is no floor.
    expect((await own.offered("2500_01")).Skipped).toBe(true);
    expect((await own.offered("2500_01", "?channel=beta")).Skipped).toBe(false);
  });

  test("without a build for the client is the stable one, as is its floor", async () => {
    await using other = await TestApp.start();
    const own = await UpdateApi.of(other);
    const ask = async (version: string, query = "?channel=beta") => {
      const { Version, Skipped } = await own.offered(version, query);
      return [Version, Skipped];
    };
    await own.published({ version: "2000_00" });
    await own.published({ version: "2001_01" });
    expect(await ask("1999_01")).toEqual(["2001_01", false]);
    expect(await ask("2000_01")).toEqual(["2001_01", true]);
    const beta = await own.published({ version: "2002_00", fields: { channel: "beta" } });
    expect(await ask("2001_01")).toEqual(["2002_00", false]);
    expect(await ask("2001_01", "")).toEqual(["2001_01", true]);
    // A build for another ABI or other devices, or a withdrawn one, does not count.
    await own.published({ version: "2001_01", abi: "arm" });
    expect(await ask("1999_01arm")).toEqual(["2001_01", false]);
    await own.patched(beta.Id, { rollout: 0 });
    expect(await ask("2000_01", "?channel=beta&device=phone")).toEqual(["2001_01", true]);
    await own.patched(beta.Id, { rollout: 100, withdrawn: true });
    // A client with a newer version is not forced to downgrade.
    await own.published({ version: "2001_00" });
    expect(await ask("2002_00")).toEqual(["2001_01", true]);
  });

  test("is left by a build that is moved to another", async () => {
    const [one, other] = [aChannel(), aChannel()];
    const { Id } = await api.published({ fields: { channel: one } });
    await api.patched(Id, { channel: other });
    expect((await api.check("0001_01", `?channel=${one}`)).status).toBe(404);
    expect((await api.offered("0001_01", `?channel=${other}`)).Id).toBe(Id);
  });
});

describe("a floor per ABI", () => {
  test("forces its own ABI alone", async () => {
    const channel = aChannel();
    const skipped = async (version: string) =>
      (await api.offered(version, `?channel=${channel}`)).Skipped;
    await api.published({ abi: "arm64", version: "6000_01", fields: { channel } });
    await api.published({ abi: "arm", version: "6000_01", fields: { channel } });
    const all = await api.published({ abi: "arm", version: "5500_00", fields: { channel } });
    await api.published({ abi: "arm", version: "6001_01", fields: { channel } });
    expect([await skipped("5400_01arm"), await skipped("5400_01arm64")]).toEqual([false, false]);
    await api.patched(all.Id, { floorPerABI: true });
    expect([await skipped("5400_01arm"), await skipped("5400_01arm64")]).toEqual([false, true]);
  });

  test("hides no greater floor for all", async () => {
    const channel = aChannel();
    const skipped = async (version: string) =>
      (await api.offered(version, `?channel=${channel}`)).Skipped;
    await api.published({ version: "7000_00", fields: { channel } });
    const fields = { channel, floorPerABI: "true" };
    await api.published({ abi: "arm", version: "6500_00", fields });
    for (const abi of ["arm", "arm64"])
      await api.published({ abi, version: "7001_01", fields: { channel } });
    expect(await skipped("6900_01arm64")).toBe(false);
    expect(await skipped("6900_01arm")).toBe(false);
    expect(await skipped("6400_01arm")).toBe(false);
    expect(await skipped("7000_01arm")).toBe(true);
  });
});
