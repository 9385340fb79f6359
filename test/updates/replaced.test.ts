import { describe, expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { RESUMING, expectRefused, headOf, knownOf } from "../support/downloads.ts";
import { eventually } from "../support/eventually.ts";
import { UpdateApi, aVersion } from "../support/updates.ts";

describe.each(["files", "s3"] as const)("a download from %s does not go on", (store) => {
  const app = TestApp.forTests({ store });
  const api = UpdateApi.forTests(app);

  // Publish at once, that is within the same second, which dates cannot tell apart.
  test("with a build that was published again under the same name", async () => {
    const build = { version: aVersion(), name: "again.apk" };
    const { URI } = await api.published({ ...build, bytes: Buffer.from("old build") });
    for (const link of [URI, `${app.url}/source/again.apk`]) {
      const known = await knownOf(link);
      await api.published({ ...build, bytes: Buffer.from(`new build ${link}`) });
      await expectRefused(link, known);
    }
  });

  test("with a newer build of another version or ABI under a flat link", async () => {
    const link = `${app.url}/source/flat.apk`;
    const others = [{ version: aVersion() }, { version: aVersion(), abi: "arm" }];
    const first = await api.published({ name: "flat.apk" });
    for (const other of others) {
      const known = await knownOf(link);
      await api.published({ ...other, name: "flat.apk" });
      await expectRefused(link, known);
    }
    expect((await knownOf(first.URI)).etag).toBe(`"${first.SHA256}"`);
  });

  test("with the build before, when the flat link leads back to that", async () => {
    const link = `${app.url}/source/back.apk`;
    await api.published({ name: "back.apk" });
    const withdrawn = await api.published({ name: "back.apk" });
    const renamed = await api.published({ name: "back.apk" });
    const known = [await knownOf(link)];
    await api.published({ version: renamed.Version, name: "elsewhere.apk" });
    for (const one of known) await expectRefused(link, one);
    known.push(await knownOf(link));
    await api.patched(withdrawn.Id, { withdrawn: true });
    for (const one of known) await expectRefused(link, one);
  });

  test("but does when only its settings have changed", async () => {
    const { Id, URI } = await api.published({ name: "settings.apk" });
    const known = await knownOf(URI);
    await api.patched(Id, { rollout: 50, appNotes: "new", channel: "beta" });
    for (const link of [URI, `${app.url}/source/settings.apk`])
      for (const [what, conditions] of RESUMING) {
        const answer = await fetch(link, { headers: { ...conditions(known), range: "bytes=5-" } });
        expect([what, answer.status]).toEqual([what, 206]);
      }
  });
});

test("builds that the version before publishes beside have their own date, too", async () => {
  await using app = await TestApp.start();
  const api = await UpdateApi.of(app);
  const update = await api.published({ bytes: Buffer.from("old build") });
  const known = await knownOf(update.URI);
  const objectId = Bun.randomUUIDv7();
  await app.objects.put(`builds/${objectId}`, Buffer.from("new build"));
  // Like the statement of the previous version, which does not set dates.
  await app.sql`update builds set object_id = ${objectId}, sha256 = ${"1".repeat(64)},
    revision = nextval('build_revisions') where id = ${update.Id}`;
  await eventually("it is seen", async () => (await headOf(update.URI)).etag !== known.etag);
  const { date } = await headOf(update.URI);
  expect(Date.parse(date)).toBeGreaterThan(Date.parse(known.date));
});
