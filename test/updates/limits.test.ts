import { beforeAll, describe, expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { encodeForm } from "../support/forms.ts";
import { PublishedBefore } from "../support/published-before.ts";
import { Random } from "../support/random.ts";
import { UpdateApi, eventuallyClean, formParts, hashesOf, updateOf } from "../support/updates.ts";

// More than the store takes in one piece.
const LIMIT = 10_000_000;
const GZIP = { headers: { "content-encoding": "gzip" } };

describe.each(["files", "s3"] as const)("a build in %s", (store) => {
  const app = TestApp.forTests({ store, env: { UPDATE_SIZE_LIMIT: String(LIMIT) } });
  let before: PublishedBefore;
  let api: UpdateApi;

  beforeAll(async () => {
    before = await PublishedBefore.in(app);
    ({ api } = before);
  });

  function formOf(length: number): Uint8Array<ArrayBuffer> {
    const { version } = before;
    return Uint8Array.from(encodeForm(formParts({ version, bytes: new Uint8Array(length) })));
  }

  test("one byte over the limit is refused, whether its length is told or not", async () => {
    const form = formOf(LIMIT + 1);
    expect((await before.outlives(api.postForm(form)))[0]).toBe(413);
    expect((await before.outlives(api.postForm(new Blob([form]).stream())))[0]).toBe(413);
  });

  test("far over the limit is refused before it has come", async () => {
    const build = { version: before.version, bytes: new Uint8Array(LIMIT * 2) };
    const { connection } = await api.begin(build, LIMIT * 1.5);
    using _ = connection;
    expect((await connection.response()).status).toBe(413);
    await before.isAllThereIs();
  });

  test("over the limit once it is inflated is refused", async () => {
    const zipped = Bun.gzipSync(formOf(LIMIT + 1));
    expect((await before.outlives(api.postForm(zipped, GZIP)))[0]).toBe(413);
  });

  test("that is no whole gzip is refused", async () => {
    const zipped = Bun.gzipSync(formOf(100_000));
    for (const body of [zipped.subarray(0, -20), formOf(10)])
      expect((await before.outlives(api.postForm(body, GZIP)))[0]).toBe(400);
  });

  test("whose form does not end is refused", async () => {
    const form = formOf(9_000_000);
    for (const end of [0, 10, 300, 5_000_000, 8_900_000, form.length - 60, form.length - 6]) {
      const [status] = await before.outlives(api.postForm(form.slice(0, end)));
      expect([end, status]).toEqual([end, 400]);
    }
  });

  test("whose connection ends is as if it had never come", async () => {
    const bytes = new Uint8Array(9_500_000);
    for (const version of [before.version, "2265_01"])
      for (const sent of [200, 500, 50_000, 9_400_000]) {
        const { connection } = await api.begin({ version, bytes }, sent);
        await Bun.sleep(50);
        connection[Symbol.dispose]();
        await before.isAllThereIs();
      }
  });

  test("of the limit is taken, zipped or not", async () => {
    const { version } = before;
    const bytes = new Random(6).bytes(LIMIT);
    expect((await api.published({ version, bytes })).Size).toBe("10.0 MB");
    const form = Uint8Array.from(encodeForm(formParts({ bytes })));
    const update = await updateOf(api.postForm(Bun.gzipSync(form, { level: 1 }), GZIP));
    expect(update).toMatchObject({ ...hashesOf(bytes), Size: "10.0 MB" });
    expect(hashesOf(await (await api.download(update)).bytes())).toEqual(hashesOf(bytes));
  });
});

test("two uploads that are cut hold up no third", async () => {
  await using app = await TestApp.start();
  const api = await UpdateApi.of(app);
  const bytes = new Uint8Array(1_000_000);
  const begun = [
    await api.begin({ version: "2265_01", bytes }, 500_000),
    await api.begin({ version: "2265_01", bytes }, 500_000),
  ];
  const update = await api.published({ version: "2265_01" });
  for (const { connection } of begun) connection[Symbol.dispose]();
  expect((await api.offered("2264_01")).SHA256).toBe(update.SHA256);
  await eventuallyClean(app);
});
