import { unpack } from "msgpackr";
import { describe, expect, test } from "bun:test";

import { archiveNameOf, dayOf } from "../../src/archives/archive-key.ts";
import { CHUNK_BYTES } from "../../src/archives/image-archive.ts";
import { TestApp } from "../support/app.ts";
import { archiveImages, archivesOf, stored } from "../support/archived-images.ts";
import { archiveFooter, archiveKeys } from "../support/archives.ts";
import { segmentKeys } from "../support/damage.ts";
import { imageOf, sha256Of, uploadImage } from "../support/images.ts";
import { aProject } from "../support/projects.ts";
import { Random } from "../support/random.ts";

const LARGE = new Random(6).bytes(500_000);
const LONG = new Random(7).bytes(9_000_000);
const DAY_MS = 86_400_000;

describe("an archive of images", () => {
  test("has those of one project and day, each with its row and its bytes in chunks of one size", async () => {
    await using app = await TestApp.start({ env: { COMMIT_BYTES: "65536" } });
    const other = await aProject(app);
    await stored(app, { small: "pixels", large: LARGE, empty: "" });
    await stored(app, { yesterday: "old" });
    const theirs = { url: app.url, projectID: other.projectID };
    const session = await app.aSession({ projectID: other.projectID });
    expect((await uploadImage(theirs, session, "small", Buffer.from("pixels"))).status).toBe(200);
    await app.sql`
      update image_contents set stored_at = stored_at - interval '1 day' where name = 'yesterday'`;
    const before = await app.sql<{ ids: string[] }[]>`
      select array_agg(distinct id) as ids from image_contents, unnest(chunk_segments) as id
      where project_id = ${app.project.id} and name <> 'yesterday'`;
    await archiveImages(app);
    const keys = await archiveKeys(app);
    const [today, yesterday] = [dayOf(Date.now()), dayOf(Date.now() - DAY_MS)];
    const groups = [
      { projectId: app.project.id, day: yesterday },
      { projectId: app.project.id, day: today },
      { projectId: other.id, day: today },
    ];
    expect(keys.map(archiveNameOf)).toMatchObject(groups);
    const footer = await archiveFooter(app, keys[1] ?? "");
    expect(new Set(footer.sources)).toEqual(new Set(before[0]?.ids));
    const rest = LARGE.length - 3 * CHUNK_BYTES;
    expect(footer.entries.map(({ kind, length }) => (kind === "chunk" ? length : kind))).toEqual([
      "content",
      6,
      "content",
      CHUNK_BYTES,
      CHUNK_BYTES,
      CHUNK_BYTES,
      rest,
      "content",
    ]);
    const [entry] = footer.entries;
    const { offset = 0, length = 0 } = entry ?? {};
    expect(unpack(await app.objects.read(keys[1] ?? "", offset, offset + length))).toEqual({
      project_id: app.project.id,
      name: "small",
      sha256: sha256Of("pixels"),
      kind: "image",
      content_type: "image/png",
      bytes: 6,
      crc32: Bun.hash.crc32("pixels"),
      uses: 1,
      stored_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/),
      network: expect.any(Number),
      network_session: expect.stringMatching(/^\d+$/),
      shared: false,
    });
    const rows = await app.sql`
      select project_id, day::text, kind, bytes = ${await sizeOf(app, keys[1] ?? "")} as same, records from archives order by project_id, day`;
    expect(rows).toMatchObject([
      { kind: "images", records: 2 },
      { kind: "images", records: 8, same: true },
      { kind: "images", records: 2 },
    ]);
    expect(await archivesOf(app)).toEqual({ rows: 3, objects: 3, garbage: 0 });
  });

  test.each(["files", "s3"] as const)("in %s has a long image alone", async (store) => {
    await using app = await TestApp.start({ store });
    await stored(app, { small: "pixels", long: LONG });
    await archiveImages(app);
    const kinds = await Promise.all(
      (await archiveKeys(app)).map(async (key) => (await archiveFooter(app, key)).entries.length),
    );
    expect(kinds.toSorted((a, b) => a - b)).toEqual([2, 1 + Math.ceil(LONG.length / CHUNK_BYTES)]);
    for (const key of await segmentKeys(app.objects)) await app.objects.remove(key);
    expect(Buffer.compare((await imageOf(app, "long")) ?? LARGE, LONG)).toBe(0);
  });
});

async function sizeOf({ objects }: TestApp, key: string): Promise<number> {
  for await (const { bytes } of objects.list(key)) return bytes;
  return 0;
}
