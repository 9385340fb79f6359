import { createHash } from "node:crypto";
import * as fc from "fast-check";
import { expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { UpdateApi } from "../support/updates.ts";

const RUNS = 30;
const CHANNELS = ["stable", "beta"];
// Both sides of a change in the number of digits, which bytes and numbers order differently.
const NUMBERS = [998, 999, 1000, 9999, 10_000];
const DEVICES = ["", "a", "b", "c", "d"];

const version = fc
  .tuple(fc.constantFrom(...NUMBERS), fc.constantFrom(0, 0, 1, 10))
  .map(([build, suffix]) => ({ build, suffix }));

const build = fc.record({
  version,
  abi: fc.constantFrom("arm", "arm64", "x86", ""),
  channel: fc.constantFrom(...CHANNELS),
  rollout: fc.constantFrom(0, 12.5, 50, 99.9, 100, 100, 100),
  withdrawn: fc.constantFrom(false, false, false, true),
  floorPerABI: fc.boolean(),
});
type ModelBuild = typeof build extends fc.Arbitrary<infer T> ? T : never;

const client = fc.record({
  version,
  abi: fc.constantFrom("", "arm", "arm64"),
  channel: fc.constantFrom("", ...CHANNELS, "none"),
  device: fc.constantFrom(...DEVICES),
});
type Client = typeof client extends fc.Arbitrary<infer T> ? T : never;

const app = TestApp.forTests();
const api = UpdateApi.forTests(app);

test("any client of any set of builds is offered what a plain reading of the rules says", async () => {
  const builds = fc.uniqueArray(build, {
    minLength: 1,
    maxLength: 10,
    selector: (one) => `${textOf(one.version)}${one.abi}`,
  });
  const clients = fc.array(client, { minLength: 1, maxLength: 20 });
  await fc.assert(
    fc.asyncProperty(builds, clients, async (world, asking) => {
      // The publishing that follows has the server read its builds again.
      await app.sql`delete from builds`;
      const ids = await Promise.all(world.map(publish));
      const known = world
        .map((one, nth) => ({ ...one, id: ids[nth] ?? 0 }))
        .toSorted((a, b) => behindOf(a, b));
      for (const one of asking) expect(await ask(one)).toEqual(expected(known, one));
    }),
    { numRuns: RUNS },
  );
}, 120_000);

async function publish(one: ModelBuild): Promise<number> {
  const { Id } = await api.published({
    version: textOf(one.version),
    abi: one.abi,
    fields: {
      channel: one.channel,
      rollout: String(one.rollout),
      withdrawn: String(one.withdrawn),
      floorPerABI: String(one.floorPerABI),
    },
  });
  return Id;
}

async function ask({ version: has, abi, channel, device }: Client) {
  const query = new URLSearchParams({
    ...(channel !== "" && { channel }),
    ...(device !== "" && { device }),
  });
  const answer = await api.check(`${textOf(has)}${abi}`, `?${query.toString()}`);
  if (answer.status === 404) return undefined;
  const { Id, Skipped } = Object(await answer.json());
  return { Id, Skipped };
}

function expected(known: (ModelBuild & { id: number })[], asking: Client) {
  const abi = asking.abi || "arm64";
  const inChannel = (channel: string) =>
    known.filter(
      (one) =>
        !one.withdrawn && one.channel === channel && isIn(one.id, asking.device, one.rollout),
    );
  const own = inChannel(asking.channel || "stable");
  const visible = own.some((one) => one.abi === abi) ? own : inChannel("stable");
  const latest = visible.findLast((one) => one.abi === abi);
  if (latest === undefined) return undefined;
  const floor = visible.findLast(
    (one) => one.version.suffix === 0 && (!one.floorPerABI || one.abi === abi),
  );
  const behind = floor === undefined ? -1 : behindOf(floor, asking);
  const isForced = behind > 0 || (behind === 0 && asking.abi === "");
  const mayForce = behindOf(latest, asking) >= 0;
  return { Id: latest.id, Skipped: !(mayForce && (latest.version.suffix === 0 || isForced)) };
}

function behindOf(one: Pick<Client, "version">, other: Pick<Client, "version">): number {
  return one.version.build - other.version.build || one.version.suffix - other.version.suffix;
}

function isIn(id: number, device: string, rollout: number): boolean {
  if (rollout === 100) return true;
  if (device === "") return false;
  const digest = createHash("sha256").update(`${id}:${device}`).digest();
  return (digest.readUIntBE(0, 6) / 2 ** 48) * 100 < rollout;
}

function textOf(one: { build: number; suffix: number }): string {
  return `${one.build}_${String(one.suffix).padStart(2, "0")}`;
}
