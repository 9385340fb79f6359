import { describe, expect, setDefaultTimeout, test } from "bun:test";

import { Evidence } from "../../src/log/verify/evidence.ts";
import { findKnownBuild, takeOutBuilds, verifyBuilds } from "../../src/updates/verify-builds.ts";
import { TestApp } from "../support/app.ts";
import { cut, flipped, gone, harm } from "../support/damage.ts";
import { eventually } from "../support/eventually.ts";
import { failure } from "../support/failure.ts";
import { FaultyObjects } from "../support/faulty-objects.ts";
import { type Update, UpdateApi } from "../support/updates.ts";
import { Random } from "../support/random.ts";

// The first run on a machine may install the S3 server.
setDefaultTimeout(120_000);

const LARGE = new Random(5).bytes(9 * 2 ** 20);
type Target = Pick<TestApp, "sql" | "objects">;

async function keyOf({ sql }: Target, { Id }: Update): Promise<string> {
  const [row] = await sql<{ key: string }[]>`
    select 'builds/' || object_id as key from builds where id = ${Id}`;
  return row?.key ?? "";
}

async function verified(app: Target, quick = false) {
  let builds = 0;
  const found = await Array.fromAsync(verifyBuilds(app, { quick, onBuild: () => void builds++ }));
  return { found, builds };
}

async function takenOut(app: Target) {
  const evidence = new Evidence(app.objects, [async () => await findKnownBuild(app)]);
  return await Array.fromAsync(takeOutBuilds(app, evidence));
}

describe.each(["files", "s3"] as const)("builds in %s", (store) => {
  test("that are gone, cut or changed are named; --quick names only what is gone", async () => {
    await using app = await TestApp.start({ store });
    const api = await UpdateApi.of(app);
    const [lost, short, changed, empty] = [
      await api.published({ notes: "lost" }),
      await api.published({ bytes: LARGE }),
      await api.published({ bytes: LARGE }),
      await api.published({ bytes: new Uint8Array(0) }),
    ];
    await api.published({ bytes: LARGE });
    expect(await verified(app)).toEqual({ found: [], builds: 5 });
    await harm(app.objects, await keyOf(app, lost), gone);
    await harm(app.objects, await keyOf(app, short), cut(2 ** 23 + 1));
    await harm(app.objects, await keyOf(app, changed), flipped(-1));
    await harm(app.objects, await keyOf(app, empty), gone);
    const found = async (update: Update, state: string, reason: string) => {
      const { Id: id, Version: version, TargetABI: targetABI, Name: name } = update;
      const key = await keyOf(app, update);
      return { what: "build", id, version, targetABI, name, key, state, reason };
    };
    const missing = [
      await found(lost, "missing", "the object is gone"),
      await found(empty, "missing", "the object is gone"),
    ];
    const damaged = [
      await found(short, "damaged", expect.stringContaining("whole range")),
      await found(changed, "damaged", "its SHA-256 is not that of the build"),
    ];
    const all = (await verified(app)).found;
    expect(all).toHaveLength(4);
    expect(all).toEqual(expect.arrayContaining([...missing, ...damaged]));
    expect((await verified(app, true)).found).toEqual(expect.arrayContaining(missing));
    expect((await verified(app, true)).found).toHaveLength(2);
  });
});

test("a build that is gone is taken out, clients are offered another one, and it can be published again", async () => {
  await using app = await TestApp.start();
  const api = await UpdateApi.of(app);
  const versions = ["2000_02", "2001_02"];
  const [older, newer] = [
    await api.published({ version: versions[0] ?? "" }),
    await api.published({ version: versions[1] ?? "" }),
  ];
  const offered = async () => (await api.offered("1000_02", "?targetABI=arm64")).Version;
  await eventually("offered", async () => (await offered()) === newer.Version);
  await harm(app.objects, await keyOf(app, newer), gone);
  expect(await takenOut(app)).toEqual([expect.objectContaining({ id: newer.Id })]);
  await eventually("another one is offered", async () => (await offered()) === older.Version);
  expect(await takenOut(app)).toEqual([]);
  expect((await verified(app)).found).toEqual([]);
  const again = await api.published({ version: newer.Version });
  expect((await api.download(again)).status).toBe(200);
});

test("a build that was published again while it was looked at is not named and stays", async () => {
  await using app = await TestApp.start();
  const api = await UpdateApi.of(app);
  await api.published();
  const build = await api.published({ version: "3000_02" });
  await harm(app.objects, await keyOf(app, build), gone);
  const objects = new FaultyObjects();
  let publishing: Promise<unknown> | undefined;
  objects.beforeRead = async () => {
    publishing ??= api.published({ version: "3000_02" });
    await publishing;
  };
  const target = { sql: app.sql, objects: objects.wrap(app.objects) };
  expect((await verified(target)).found).toEqual([]);
  await harm(app.objects, await keyOf(app, build), gone);
  publishing = undefined;
  expect(await takenOut(target)).toEqual([]);
  expect(await api.list()).toHaveLength(2);
});

test("no build is taken out when the store has none", async () => {
  await using app = await TestApp.start();
  const api = await UpdateApi.of(app);
  const build = await api.published();
  await harm(app.objects, await keyOf(app, build), gone);
  expect(String(await failure(takenOut(app)))).toContain("nothing is taken out");
  expect(await api.list()).toHaveLength(1);
});
