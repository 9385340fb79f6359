import { describe, expect, setDefaultTimeout, test } from "bun:test";

import { openDatabase } from "../../../src/platform/database/database.ts";
import { DependencyAway } from "../../../src/platform/errors.ts";
import { ConclusiveObjects } from "../../../src/platform/objects/conclusive-objects.ts";
import { TestApp } from "../../support/app.ts";
import { cut, flipped, gone, harm, segmentKeys } from "../../support/damage.ts";
import { failure } from "../../support/failure.ts";
import { FaultyObjects } from "../../support/faulty-objects.ts";
import { aFile, upload } from "../../support/images.ts";
import { storedBefore } from "../../support/images-before.ts";
import { ingestTables, reindex, untilIndexed } from "../../support/ingest-tables.ts";
import { putSegment } from "../../support/made-segment.ts";
import { aProject } from "../../support/projects.ts";
import {
  batch,
  lostImage,
  lostOf,
  marksOf,
  missingSegment,
  sendBatches,
  sendImage,
  verified,
} from "../../support/verified.ts";

const STORES =
  process.env["TEST_LONG"] === undefined ? (["files"] as const) : (["files", "s3"] as const);

// The first run on a machine may install the S3 server.
setDefaultTimeout(120_000);

// Offset inside the body of a segment's only batch.
const IN_BODY = 300;
const MISMATCH = "1 of 1 records are not what was written";

describe.each(STORES)("of objects in %s", (store) => {
  test("whatever is gone, cut or flipped is named with whom it affects, and no row changes", async () => {
    await using app = await TestApp.start({ store });
    const session = await app.aSession();
    const other = await app.aSession();
    const keys = await sendBatches(app, session, 0, 1, 2, 3, 4, 5);
    await sendBatches(app, other, 0, 1);
    const whole = await verified(app);
    expect(whole).toEqual({
      found: [],
      checked: { segments: 11, archives: 0, batches: 8, images: 0 },
    });

    const [lost = "", short = "", bad = "", empty = "", headless = ""] = keys;
    await harm(app.objects, lost, gone);
    await harm(app.objects, short, cut(100));
    await harm(app.objects, bad, flipped(IN_BODY));
    await harm(app.objects, empty, cut(0));
    // A byte of the footer: the record itself can be read.
    await harm(app.objects, headless, flipped(-40));
    const before = await ingestTables(app.sql);
    const { found, checked } = await verified(app);
    expect(checked).toEqual({ segments: 11, archives: 0, batches: 8, images: 0 });
    const reason: string = expect.any(String);
    expect(found).toEqual([
      missingSegment(lost),
      { what: "segment", state: "damaged", key: short, reason },
      { what: "segment", state: "damaged", key: bad, reason: MISMATCH },
      { what: "segment", state: "damaged", key: empty, reason },
      { what: "segment", state: "damaged", key: headless, reason },
      lostOf(session, "missing", { batches: 1 }),
      lostOf(session, "damaged", { batches: 3 }),
    ]);
    expect(await ingestTables(app.sql)).toEqual(before);
    expect(await marksOf(app)).toEqual([lost, short, bad, empty, headless].toSorted());
    expect((await verified(app)).found).toEqual(found);
  });

  test("--quick finds what is gone, and nothing else", async () => {
    await using app = await TestApp.start({ store });
    const session = await app.aSession();
    const [lost = "", bad = "", empty = ""] = await sendBatches(app, session, 0, 1, 2, 3);
    const chunks = await sendImage(app, session, "shot", "x".repeat(300_000));
    await harm(app.objects, lost, gone);
    await harm(app.objects, bad, flipped(IN_BODY));
    await harm(app.objects, empty, cut(0));
    for (const key of chunks) await harm(app.objects, key, gone);
    const expected = [
      ...[lost, ...chunks].map(missingSegment),
      lostOf(session, "missing", { batches: 1, images: 1 }),
      lostImage("shot", "missing", "x".repeat(300_000)),
    ];
    for (const project of [undefined, app.project.id]) {
      const { found } = await verified(app, { quick: true, project });
      expect(found).toEqual(expect.arrayContaining(expected));
      expect(found).toHaveLength(expected.length);
    }
    // Segments that were found damaged before, too, are looked at only for whether they are there.
    await verified(app);
    expect((await verified(app, { quick: true })).found).toEqual(expect.arrayContaining(expected));
    expect((await verified(app, { quick: true })).found).toHaveLength(expected.length);
  });

  test("an image is missing or damaged with any of its chunks, for all who sent it", async () => {
    await using app = await TestApp.start({ store, env: { COMMIT_BYTES: String(128 * 1024) } });
    const [first, second] = [await app.aSession(), await app.aSession()];
    const contents = { lost: "l".repeat(400_000), bad: "b".repeat(400_000), whole: "whole" };
    const keys = {
      lost: await sendImage(app, first, "lost", contents.lost),
      bad: await sendImage(app, first, "bad", contents.bad),
      whole: await sendImage(app, first, "whole", contents.whole),
    };
    expect(keys.lost.length).toBeGreaterThan(2);
    for (const [name, content] of Object.entries(contents))
      expect((await upload(app, second, [aFile(name, content)])).status).toBe(200);
    await storedBefore(app, first, { name: "before", content: "of the previous version" });
    const before = (await segmentKeys(app.objects)).at(-2) ?? "";
    await untilIndexed(app);

    await harm(app.objects, keys.lost[1] ?? "", gone);
    await harm(app.objects, keys.bad[1] ?? "", flipped(5000));
    await harm(app.objects, before, gone);
    const found = (await verified(app)).found.filter(({ what }) => what !== "segment");
    expect(found).toEqual([
      ...[first, second].flatMap((session) => [
        lostOf(session, "damaged", { images: 1 }),
        lostOf(session, "missing", { images: 1 }),
      ]),
      lostImage("bad", "damaged", contents.bad),
      lostImage("lost", "missing", contents.lost),
      lostImage("before", "missing"),
    ]);
  });
});

describe("--project", () => {
  test("sees what its rows name, also of a segment that it shares, and nothing of another project", async () => {
    await using app = await TestApp.start({ env: { COMMIT_BYTES: String(2 ** 20) } });
    const other = await aProject(app);
    const mine = await app.aSession();
    const theirs = await app.aSession({ projectID: other.projectID });
    const [own = ""] = await sendBatches(app, mine, 0);
    const shared = await putSegment(app.objects, [
      { kind: "batch", sessionID: mine.sessionID, body: batch(7) },
      { kind: "batch", sessionID: theirs.sessionID, projectId: other.id, body: batch(8) },
    ]);
    await reindex(app);
    await harm(app.objects, shared.key, flipped((shared.places[1]?.offset ?? 0) + 9));
    const damaged = { what: "segment", state: "damaged", key: shared.key };
    const lost = lostOf(theirs, "damaged", { batches: 1, projectId: other.id });
    expect((await verified(app, { project: other.id })).found).toEqual([
      expect.objectContaining(damaged),
      lost,
    ]);
    // The damage is in a segment that it uses, but in none of its rows.
    expect((await verified(app, { project: 1 })).found).toEqual([expect.objectContaining(damaged)]);
    await harm(app.objects, own, gone);
    for (const quick of [true, false]) {
      const { found } = await verified(app, { project: other.id, quick });
      expect(JSON.stringify(found)).not.toContain(own);
      expect(JSON.stringify(found)).not.toContain(mine.sessionID);
    }
    const { found, checked } = await verified(app, { project: 1, quick: true });
    expect(found).toEqual([missingSegment(own), lostOf(mine, "missing", { batches: 1 })]);
    expect(checked).toEqual({ segments: 2, archives: 0, batches: 2, images: 0 });
  });
});

describe("what is neither missing nor damaged", () => {
  test("is what a server commits meanwhile, and what becomes a tombstone while its object goes", async () => {
    await using app = await TestApp.start();
    const session = await app.aSession();
    const [key = ""] = await sendBatches(app, session, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11);
    const objects = new FaultyObjects();
    let at = 100;
    const meanwhile: Promise<unknown>[] = [];
    let collecting: Promise<void> | undefined;
    objects.beforeRead = async (read) => {
      if (at < 120) meanwhile.push(app.append(session, batch(at++)));
      if (read !== key) return;
      collecting ??= (async () => {
        await app.sql`update segments set deleted = true where id = ${key.slice(-36)}`;
        await app.sql`delete from batches where segment_id = ${key.slice(-36)}`;
        await app.objects.remove(key);
      })();
      await collecting;
    };
    const target = { sql: app.sql, objects: objects.wrap(app.objects) };
    for (const quick of [true, false])
      expect((await verified(target, { quick })).found).toEqual([]);
    await Promise.all(meanwhile);
    expect(meanwhile.length).toBeGreaterThan(10);
  });

  test("is what came back: a check of all its bytes removes the mark, a quick one does not", async () => {
    await using app = await TestApp.start();
    const session = await app.aSession();
    const [key = ""] = await sendBatches(app, session, 0, 1);
    let backup = new Uint8Array(0);
    await harm(app.objects, key, (bytes) => void (backup = Uint8Array.from(bytes)));
    expect((await verified(app, { quick: true })).found).toHaveLength(2);
    await app.objects.put(key, backup);
    expect((await verified(app, { quick: true })).found).toEqual([]);
    expect(await marksOf(app)).toEqual([key]);
    expect((await verified(app, { project: 1 })).found).toEqual([]);
    expect(await marksOf(app)).toEqual([]);
  });

  test("is a body that was damaged on its way, and a store that could not be read once", async () => {
    const objects = new FaultyObjects();
    await using app = await TestApp.start();
    const session = await app.aSession();
    const keys = await sendBatches(app, session, 0, 1, 2);
    const seen = new Set<string>();
    objects.changeRead = (bytes, key) => {
      if (seen.has(key) || !keys.includes(key)) return bytes;
      seen.add(key);
      return Buffer.from(bytes).fill(7, 60, 90);
    };
    const target = { sql: app.sql, objects: objects.wrap(app.objects) };
    expect((await verified(target)).found).toEqual([]);
    expect(seen.size).toBe(3);
  });
});

describe("a store that goes away in the middle", () => {
  test.each([true, false])(
    "ends the check with an error that says so, --quick %p",
    async (quick) => {
      await using app = await TestApp.start();
      const session = await app.aSession();
      const keys = await sendBatches(app, session, 0, 1, 2, 3, 4);
      for (const key of keys.slice(0, 3)) await harm(app.objects, key, gone);
      const before = await ingestTables(app.sql);
      const objects = new FaultyObjects();
      let reads = 0;
      objects.beforeRead = () => {
        if (++reads > 2) throw new Error("no answer");
      };
      objects.beforePing = () => {
        throw new Error("no answer either");
      };
      const target = { sql: app.sql, objects: new ConclusiveObjects(objects.wrap(app.objects)) };
      const error = await failure(verified(target, { quick }));
      expect(error).toBeInstanceOf(DependencyAway);
      expect(String(error)).toMatch(/the object store is away: no answer/);
      expect(await ingestTables(app.sql)).toEqual(before);
    },
  );

  test("an object that alone cannot be read is damaged", async () => {
    await using app = await TestApp.start();
    const session = await app.aSession();
    const [key = ""] = await sendBatches(app, session, 0, 1);
    const objects = new FaultyObjects();
    objects.beforeRead = (read) => {
      if (read === key) throw new Error("403");
    };
    const target = { sql: app.sql, objects: new ConclusiveObjects(objects.wrap(app.objects)) };
    expect((await verified(target)).found).toEqual([
      { what: "segment", state: "damaged", key, reason: "403" },
      lostOf(session, "damaged", { batches: 1 }),
    ]);
    expect((await verified(target, { quick: true })).found).toEqual([]);
  });
});

test("a check goes on when its connections to PostgreSQL are lost", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  const [lost = ""] = await sendBatches(app, session, ...Array.from({ length: 30 }, (_, n) => n));
  await harm(app.objects, lost, gone);
  await using sql = openDatabase(app.databaseUrl, { connections: 2 });
  const objects = new FaultyObjects();
  let reads = 0;
  let cutting: Promise<unknown> | undefined;
  objects.beforeRead = () => {
    if (++reads === 20)
      cutting = Promise.resolve(app.sql`
        select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and datname = current_database()`);
  };
  const { found } = await verified({ sql, objects: objects.wrap(app.objects) });
  await cutting;
  expect(cutting).toBeDefined();
  expect(found).toEqual([missingSegment(lost), lostOf(session, "missing", { batches: 1 })]);
});
