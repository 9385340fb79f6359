import { describe, expect, test } from "bun:test";

import { segmentKey } from "../../../src/log/segment.ts";
import { TestApp } from "../../support/app.ts";
import { aBatch } from "../../support/batches.ts";
import { aFile, imageOf, upload } from "../../support/images.ts";
import { emptyTables, ingestTables } from "../../support/ingest-tables.ts";
import { putSegment } from "../../support/made-segment.ts";
import {
  CHUNK,
  NOTHING,
  NO_GRACE,
  batch,
  chunk,
  keysOf,
  orphansOf,
  stateOf,
} from "../../support/orphans.ts";
import { Random } from "../../support/random.ts";

const DAY_MS = 24 * 60 * 60_000;

describe("a live object is never deleted:", () => {
  test("one with an image's chunks, though its batches are all somewhere else", async () => {
    await using app = await TestApp.start();
    const session = await app.aSession();
    await app.append(session, aBatch());
    const records = [batch(session), chunk(session)];
    const mixed = await putSegment(app.objects, records, { ageMs: 3 * DAY_MS });
    const [, place] = mixed.places;
    const image = {
      project_id: app.project.id,
      name: "image",
      session_id: session.sessionID,
      kind: "image",
      content_type: "image/png",
      bytes: place?.length,
      crc32: 0,
      uses: 1,
      stored_at: new Date().toISOString(),
      chunk_segments: [mixed.id],
      chunk_offsets: [place?.offset],
      chunk_lengths: [place?.length],
    };
    const { sessionID } = session;
    await putSegment(app.objects, [{ kind: "image", sessionID, body: image }], {
      ageMs: 2 * DAY_MS,
    });
    expect(await orphansOf(app).look()).toMatchObject({ deleted: 0 });
    expect(await orphansOf(app).look()).toMatchObject({ deleted: 0 });
    expect(await imageOf(app, "image")).toEqual(CHUNK);
    expect((await stateOf(app)).orphans).toEqual([]);
  });

  test("a database that lost everything gets it back, also without reindex", async () => {
    await using app = await TestApp.start({ env: { COMMIT_BYTES: String(128 * 1024) } });
    const session = await app.aSession();
    const large = new Random(5).bytes(600_000);
    await upload(app, session, [aFile("large", large)]);
    for (const salt of ["a", "b", "c"]) await app.append(session, aBatch({ salt }));
    await app.append(session, aBatch({ salt: "a" }));
    const before = await ingestTables(app.sql);
    const keys = await keysOf(app);
    await emptyTables(app.sql);
    // Not even chunks are given time.
    const orphans = orphansOf(app, { ...NO_GRACE, chunksMs: -1000 });
    await orphans.look();
    await orphans.look();
    const after = await ingestTables(app.sql);
    const { projects, sessions, batches, contents, uses, images } = after;
    expect({ projects, sessions, batches, contents, uses, images }).toEqual({
      projects: before.projects,
      sessions: before.sessions,
      batches: before.batches,
      contents: before.contents,
      uses: before.uses,
      images: before.images,
    });
    expect(await imageOf(app, "large")).toEqual(large);
    // Of all that only the duplicate was too much.
    expect(keys.length - (await keysOf(app)).length).toBe(1);
  });

  test("a database that lost the rows of segments alone keeps all of them", async () => {
    await using app = await TestApp.start({ env: { COMMIT_BYTES: String(128 * 1024) } });
    const session = await app.aSession();
    await upload(app, session, [aFile("large", new Random(6).bytes(400_000)), aFile("empty", "")]);
    for (const salt of ["a", "b"]) await app.append(session, aBatch({ salt }));
    const before = await ingestTables(app.sql);
    const keys = await keysOf(app);
    await app.sql`truncate segments`;
    await orphansOf(app, { ...NO_GRACE, chunksMs: -1000 }).look();
    expect(await keysOf(app)).toEqual(keys);
    const { segments, batches } = await ingestTables(app.sql);
    expect({ segments, batches }).toEqual({ segments: before.segments, batches: before.batches });
  });

  test("what is damaged or foreign", async () => {
    await using app = await TestApp.start();
    const session = await app.aSession();
    const { key } = await putSegment(app.objects, [batch(session, "after")], { ageMs: 2 * DAY_MS });
    const keys = ["segments/notes.txt", segmentKey("0199c7e2-8c00-7abc-8def-0123456789ab")];
    for (const each of keys) await app.objects.put(each, Buffer.from("foreign"));
    expect(await orphansOf(app).look()).toEqual({ ...NOTHING, adopted: 1, damaged: 1 });
    expect(await keysOf(app)).toEqual(expect.arrayContaining([...keys, key]));
  });
});
