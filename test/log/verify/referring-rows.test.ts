import { describe, expect, test } from "bun:test";

import { segmentKey } from "../../../src/log/segment.ts";
import { TestApp } from "../../support/app.ts";
import { flipped, gone, harm } from "../../support/damage.ts";
import { emptyTables, reindex } from "../../support/ingest-tables.ts";
import { segmentId } from "../../support/made-segment.ts";
import {
  lostOf,
  marksOf,
  missingSegment,
  sendBatches,
  sendImage,
  verified,
} from "../../support/verified.ts";

const IN_BODY = 300;

describe("of any number", () => {
  test("segments over many pages are each named once", async () => {
    await using app = await TestApp.start();
    const ids = Array.from({ length: 2137 }, (_, nth) => segmentId(10_000 + nth));
    await app.sql`insert into segments (id, bytes, records) select unnest(${ids}::uuid[]), 1, 1`;
    for (const quick of [true, false]) {
      const { found, checked } = await verified(app, { quick });
      expect(checked.segments).toBe(ids.length + 1);
      expect(found).toEqual(ids.toSorted().map((id) => missingSegment(segmentKey(id))));
    }
  });

  test("rows over many pages are each counted once, for their session", async () => {
    await using app = await TestApp.start();
    const id = segmentId(1000);
    const whole = await app.aSession();
    await sendBatches(app, whole, 0, 1, 2);
    await app.sql`insert into segments (id, bytes, records) values (${id}, 1, 1)`;
    await app.sql`
      insert into sessions (id, project_id, started_at) select n, 1, now() from generate_series(1, 1200) as n`;
    // 1,200 sessions with 20 batches each, and one with 15,000.
    await app.sql`
      insert into batches (session_id, segment_id, "offset", length, bytes, hash, flags, messages, received_at)
      select case when n <= 24000 then 1 + n % 1200 else 5000 end, ${id}, n, 1, 1, n, 0, 1, now() from generate_series(1, 39000) as n`;
    await app.sql`
      insert into image_contents (project_id, name, sha256, kind, content_type, bytes, crc32, uses, stored_at,
        chunk_segments, chunk_offsets, chunk_lengths)
      select 1, 'image ' || n, decode(md5(n::text), 'hex'), 'image', 'image/png', 1, 1, 1, now(), array[${id}::uuid], array[n], array[1]
      from generate_series(1, 1700) as n`;
    await app.sql`
      insert into image_uses (session_id, name, sha256, project_id, kind, content_type, sent_at)
      select 1 + n % 1200, 'image ' || n, decode(md5(n::text), 'hex'), 1, 'image', 'image/png', now() from generate_series(1, 1700) as n`;
    const sums = { batches: 0, images: 0, sessions: 0, contents: 0 };
    const { found, checked } = await verified(app, { quick: true });
    for (const one of found) {
      if (one.what === "image") sums.contents++;
      if (one.what !== "session") continue;
      sums.sessions++;
      sums.batches += one.batches;
      sums.images += one.images;
    }
    expect(sums).toEqual({ batches: 39_000, images: 1700, sessions: 1201, contents: 1700 });
    expect(checked).toEqual({ segments: 6, archives: 0, batches: 39_003, images: 1700 });
    const ofProject = await verified(app, { quick: true, project: 1 });
    expect(ofProject.checked).toEqual({ segments: 4, archives: 0, batches: 24_003, images: 1700 });
    expect(ofProject.found.filter(({ what }) => what === "session")).toHaveLength(1200);
  });
});

test("rows that name a segment without a row are checked, too", async () => {
  await using app = await TestApp.start({ env: { COMMIT_BYTES: String(128 * 1024) } });
  const session = await app.aSession();
  const chunks = await sendImage(app, session, "shot", "x".repeat(300_000));
  const record = chunks.at(-1) ?? "";
  const [lost = "", there = ""] = await sendBatches(app, session, 0, 1);
  for (const key of chunks.filter((one) => one !== record)) await harm(app.objects, key, gone);
  // Rebuilt from the store, the image names segments that nobody knows any more.
  await emptyTables(app.sql);
  await reindex(app);
  await app.sql`delete from segments where id in (${lost.slice(-36)}, ${there.slice(-36)})`;
  await harm(app.objects, lost, gone);
  for (const quick of [true, false]) {
    const { found } = await verified(app, { quick });
    expect(found).toEqual([
      lostOf(session, "missing", { batches: 1, images: 1 }),
      expect.objectContaining({ what: "image", name: "shot", state: "missing" }),
    ]);
  }
  await harm(app.objects, there, flipped(IN_BODY));
  expect((await verified(app)).found).toContainEqual(lostOf(session, "damaged", { batches: 1 }));
  expect(await marksOf(app)).toContain(there);
});
