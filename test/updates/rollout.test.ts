import { describe, expect, test } from "bun:test";

import { isIn } from "../../src/updates/rollout.ts";
import { TestApp } from "../support/app.ts";
import { cpuMs } from "../support/eventually.ts";
import { UpdateApi, plainOf } from "../support/updates.ts";

const DEVICES = 1_000_000;
const CPU_MS_MAX = 4000;
const SHARE_POINTS_MAX = 0.2;
const PERCENTS = [1, 12.5, 50, 99];
const NOTHING: [number, string] = [404, "record not found\n"];

const ids = Array.from({ length: DEVICES }, (_, nth) => `device-${nth}`);

describe("a million devices", () => {
  test("are asked for within four seconds", () => {
    let count = 0;
    const ms = cpuMs(() => {
      for (const id of ids) if (isIn(7, id, 50)) count++;
    });
    expect(ms).toBeLessThan(CPU_MS_MAX);
    expect(Math.abs(count / (DEVICES / 100) - 50)).toBeLessThan(SHARE_POINTS_MAX);
  });

  test("get the share that was asked for, and who is in stays in as it grows", () => {
    let inside: string[] = ids;
    for (const percent of PERCENTS.toReversed()) {
      const now = ids.filter((id) => isIn(8, id, percent));
      expect(Math.abs(now.length / (DEVICES / 100) - percent)).toBeLessThan(SHARE_POINTS_MAX);
      const larger = new Set(inside);
      expect(now.every((id) => larger.has(id))).toBe(true);
      inside = now;
    }
  });

  test("are all in at 100 percent, and none at 0", () => {
    const some = ids.slice(0, 10_000);
    expect(some.every((id) => isIn(9, id, 100))).toBe(true);
    expect(some.some((id) => isIn(9, id, 0))).toBe(false);
  });

  test("take turns in being the first: two builds have nothing in common", () => {
    const some = ids.slice(0, 100_000);
    const first = some.filter((id) => isIn(10, id, 10));
    const both = first.filter((id) => isIn(11, id, 10));
    expect(both.length / first.length).toBeGreaterThan(0.08);
    expect(both.length / first.length).toBeLessThan(0.12);
  });
});

describe("a build for some", () => {
  const app = TestApp.forTests();
  const api = UpdateApi.forTests(app);

  /** Which of the devices are offered the build, in a channel where it is the only one. */
  async function offeredTo(channel: string, devices: string[]): Promise<string[]> {
    const statuses = await Promise.all(
      devices.map(async (device) => {
        const answer = await api.check("0001_01", `?channel=${channel}&device=${device}`);
        return (await answer.json().catch(() => undefined)) === undefined ? [] : [device];
      }),
    );
    return statuses.flat();
  }

  test("is offered to the same devices at any time, and to more as it grows", async () => {
    const devices = ids.slice(0, 300);
    const { Id, Rollout } = await api.published({ fields: { channel: "grow", rollout: "10" } });
    expect(Rollout).toBe(10);
    let inside: string[] = [];
    for (const rollout of [10, 10, 25.5, 80, 100]) {
      expect((await api.patched(Id, { rollout })).Rollout).toBe(rollout);
      const now = await offeredTo("grow", devices);
      expect(now).toEqual(devices.filter((device) => isIn(Id, device, rollout)));
      expect(now).toEqual(expect.arrayContaining(inside));
      inside = now;
    }
    expect(inside).toEqual(devices);
  });

  test("knows a device by the query or by a header, and the query wins", async () => {
    const { Id } = await api.published({ fields: { channel: "known", rollout: "50" } });
    const inside = ids.find((id) => isIn(Id, id, 50)) ?? "";
    const outside = ids.find((id) => !isIn(Id, id, 50)) ?? "";
    const status = async (query: string, headers: Record<string, string> = {}) =>
      (await api.check("0001_01", `?channel=known${query}`, headers)).status;
    expect(await status(`&device=${inside}`)).toBe(200);
    expect(await status(`&device=${outside}`)).toBe(404);
    expect(await status("", { "x-device-id": inside })).toBe(200);
    expect(await status("", { "X-Device-ID": inside })).toBe(200);
    expect(await status("", { "x-device-id": outside })).toBe(404);
    expect(await status(`&device=${inside}`, { "x-device-id": outside })).toBe(200);
    expect(await status(`&device=${outside}`, { "x-device-id": inside })).toBe(404);
  });

  test("is not offered to a device without a name below 100 percent", async () => {
    const { Id } = await api.published({ fields: { channel: "unnamed", rollout: "99.99" } });
    for (const query of ["", "&device="])
      expect(await plainOf(api.check("0001_01", `?channel=unnamed${query}`))).toEqual(NOTHING);
    await api.patched(Id, { rollout: 100 });
    expect((await api.offered("0001_01", "?channel=unnamed")).Id).toBe(Id);
  });

  test("is neither offer nor floor for those outside", async () => {
    const old = await api.published({ fields: { channel: "floor" }, version: "2300_01" });
    const forced = await api.published({
      version: "2301_00",
      fields: { channel: "floor", rollout: "50" },
    });
    const inside = ids.find((id) => isIn(forced.Id, id, 50)) ?? "";
    const outside = ids.find((id) => !isIn(forced.Id, id, 50)) ?? "";
    const ask = async (version: string, device: string) => {
      const { Id, Skipped } = await api.offered(version, `?channel=floor&device=${device}`);
      return { Id, Skipped };
    };
    expect(await ask("2299_01", inside)).toEqual({ Id: forced.Id, Skipped: false });
    expect(await ask("2299_01", outside)).toEqual({ Id: old.Id, Skipped: true });
    // A floor for another ABI is one for those inside alone, too.
    const arm = await api.published({
      abi: "arm",
      version: "2302_01",
      fields: { channel: "floor" },
    });
    expect(await ask("2299_01arm", inside)).toEqual({ Id: arm.Id, Skipped: false });
    expect(await ask("2299_01arm", outside)).toEqual({ Id: arm.Id, Skipped: true });
  });
});
