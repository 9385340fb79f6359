import { describe, expect, setDefaultTimeout, test } from "bun:test";

import { TestApp, type TestSession } from "../../support/app.ts";
import {
  type Written,
  archived,
  commitStep,
  dropArchived,
  writeStep,
} from "../../support/archive-objects.ts";
import { readState } from "../../support/archived-state.ts";
import { cut, flipped, gone, harm } from "../../support/damage.ts";
import { emptyTables, reindex, sessionFacts } from "../../support/ingest-tables.ts";
import { merged } from "../../support/merged-archives.ts";
import { sendBatches, sendImage } from "../../support/verified.ts";

// The first run on a machine may install the S3 server.
setDefaultTimeout(120_000);

const WHOLE = { damaged: 0, missing: 0, problems: [] };

/** Two sessions whose batches are in three archives each, and nothing else. */
async function threeSteps(app: TestApp): Promise<{ sessions: TestSession[]; inputs: Written[] }> {
  const sessions = [await app.aSession(), await app.aSession({ userID: "ann" })];
  const inputs: Written[] = [];
  for (const first of [0, 3, 6]) {
    for (const [nth, session] of sessions.entries())
      await sendBatches(app, session, first, first + 1, first + 2 + 100 * nth);
    await sessionFacts(app.sql);
    const { written } = await archived(app, await landing(app));
    inputs.push(...written.filter(({ archive }) => archive.kind === "sessions"));
  }
  return { sessions, inputs };
}

/** The inputs, and an archive of each session; the rows are those before the merge. */
async function aCutMerge(app: TestApp) {
  const { sessions, inputs } = await threeSteps(app);
  const before = await readState(app);
  const outputs: Written[] = [];
  for (const { sessionID } of sessions) outputs.push(await merged(app, inputs, false, sessionID));
  await dropArchived(app);
  return { inputs, outputs, before };
}

async function landing(app: TestApp): Promise<string[]> {
  const rows = await app.sql<{ id: string }[]>`select id from segments where archived_at is null`;
  return rows.map(({ id }) => id);
}

async function rowsOf({ sql }: TestApp) {
  const archives = await sql<
    { id: string }[]
  >`select id from archives where kind = 'sessions' order by id`;
  const [pieces] = await sql<
    [{ batches: number }]
  >`select coalesce(sum(batches), 0)::integer as batches from session_pieces`;
  const garbage = await sql<
    { key: string; by: string[] }[]
  >`select key, replaced_by as by from object_garbage order by key`;
  return { archives: archives.map(({ id }) => id), batches: pieces.batches, garbage: [...garbage] };
}

describe("an archive beside those that it was made of", () => {
  test("is taken in alone, and they are deleted later", async () => {
    await using app = await TestApp.start();
    const { inputs } = await threeSteps(app);
    const before = await readState(app);
    const output = await merged(app, inputs);
    await dropArchived(app);
    await emptyTables(app.sql);
    const { ofArchives } = await reindex(app);
    expect(ofArchives).toMatchObject({ ...WHOLE, replaced: 3 });
    expect(await readState(app)).toEqual(before);
    expect(await rowsOf(app)).toEqual({
      archives: [output.archive.id],
      batches: 18,
      garbage: inputs.map(({ key }) => ({ key, by: [output.archive.id] })),
    });
    expect((await reindex(app)).ofArchives).toMatchObject({ ...WHOLE, known: 2, replaced: 3 });
    expect((await rowsOf(app)).archives).toEqual([output.archive.id]);
  });

  test("gives way to them if it is damaged", async () => {
    await using app = await TestApp.start();
    const { inputs } = await threeSteps(app);
    const before = await readState(app);
    const output = await merged(app, inputs);
    await dropArchived(app);
    for (const at of [100, -30, -200]) {
      await harm(app.objects, output.key, flipped(at));
      await emptyTables(app.sql);
      const { ofArchives } = await reindex(app);
      expect(ofArchives).toMatchObject({ damaged: 1, missing: 0, replaced: 0 });
      expect(await readState(app)).toEqual(before);
      expect((await rowsOf(app)).archives).toEqual(inputs.map(({ archive }) => archive.id));
    }
  });

  test("takes their place in a database that was restored to a time before it", async () => {
    await using app = await TestApp.start();
    const { inputs } = await threeSteps(app);
    const before = await readState(app);
    const output = await merged(app, inputs, false);
    // The grace of one has not ended yet.
    for (const { key } of inputs.slice(1)) await harm(app.objects, key, gone);
    const { ofArchives } = await reindex(app);
    expect(ofArchives).toMatchObject({ ...WHOLE, archives: 1 });
    expect(await readState(app)).toEqual(before);
    expect(await rowsOf(app)).toMatchObject({ archives: [output.archive.id], batches: 18 });
  });

  test("does not take their place if it is damaged: what is gone is missing, and said to be", async () => {
    await using app = await TestApp.start();
    const { inputs } = await threeSteps(app);
    const output = await merged(app, inputs, false);
    await harm(app.objects, output.key, cut(-1));
    await harm(app.objects, inputs[1]?.key ?? "", gone);
    const { ofArchives } = await reindex(app);
    expect(ofArchives).toMatchObject({ archives: 0, damaged: 1, missing: 1 });
    expect((await rowsOf(app)).archives).toHaveLength(3);
  });
});

describe("archives that a merge was cut into", () => {
  test("take the place of what they were made of together", async () => {
    await using app = await TestApp.start();
    const { outputs, before } = await aCutMerge(app);
    await emptyTables(app.sql);
    expect((await reindex(app)).ofArchives).toMatchObject({ ...WHOLE, replaced: 3 });
    expect(await readState(app)).toEqual(before);
    const { archives, batches, garbage } = await rowsOf(app);
    expect(archives).toEqual(outputs.map(({ archive }) => archive.id));
    expect(batches).toBe(18);
    for (const { by } of garbage) expect(by.toSorted()).toEqual(archives.toSorted());
  });

  test("leave what is not in them where it was", async () => {
    await using app = await TestApp.start();
    const { inputs, outputs, before } = await aCutMerge(app);
    const [kept, lost] = outputs;
    for (const how of [flipped(100), gone]) {
      await harm(app.objects, lost?.key ?? "", how);
      await emptyTables(app.sql);
      expect((await reindex(app)).ofArchives).toMatchObject({ missing: 0, replaced: 0 });
      expect(await readState(app)).toEqual(before);
      const { archives, batches, garbage } = await rowsOf(app);
      const ids = [...inputs, kept].map((one) => one?.archive.id ?? "");
      expect(archives).toEqual(ids.toSorted());
      expect({ batches, garbage }).toEqual({ batches: 18, garbage: [] });
    }
  });

  test("take the place of rows that a backup of the database had", async () => {
    await using app = await TestApp.start();
    const { inputs, outputs, before } = await aCutMerge(app);
    for (const { key } of inputs) await harm(app.objects, key, gone);
    expect((await reindex(app)).ofArchives).toMatchObject({ ...WHOLE, archives: 2 });
    expect(await readState(app)).toEqual(before);
    expect((await rowsOf(app)).archives).toEqual(outputs.map(({ archive }) => archive.id));
  });
});

describe("a record that several objects have counts once", () => {
  test("when a step was done twice", async () => {
    await using app = await TestApp.start();
    const session = await app.aSession();
    await sendBatches(app, session, 0, 1, 2);
    await sessionFacts(app.sql);
    const before = await readState(app);
    await writeStep(app);
    await commitStep(app.sql, await writeStep(app));
    await dropArchived(app);
    await emptyTables(app.sql);
    expect((await reindex(app)).ofArchives).toMatchObject(WHOLE);
    expect(await readState(app)).toEqual(before);
    expect((await rowsOf(app)).batches).toBe(3);
  });

  test("when segments that were restored are archived again before their archive is taken in", async () => {
    await using app = await TestApp.start();
    const session = await app.aSession();
    await sendBatches(app, session, 0, 1, 2);
    await sendImage(app, session, "shot", "pixels");
    await sessionFacts(app.sql);
    const before = await readState(app);
    const { written } = await archived(app);
    await emptyTables(app.sql);
    for (const { key } of written) await harm(app.objects, key, gone);
    await reindex(app);
    await archived(app);
    for (const { key, bytes } of written) await app.objects.put(key, bytes);
    expect((await reindex(app)).ofArchives).toMatchObject(WHOLE);
    expect(await readState(app)).toEqual(before);
    expect((await rowsOf(app)).batches).toBe(3);
  });

  test("when only the segments of the last hours are left beside the archives", async () => {
    await using app = await TestApp.start();
    const session = await app.aSession({ userID: "ann" });
    await sendBatches(app, session, 0, 1, 2);
    await sessionFacts(app.sql);
    await archived(app);
    await dropArchived(app);
    // One of these is a batch that an archive has.
    await sendBatches(app, session, 3, 4);
    await sendImage(app, session, "shot", "pixels");
    await sessionFacts(app.sql);
    const before = await readState(app);
    await emptyTables(app.sql);
    await reindex(app);
    expect(await readState(app)).toEqual(before);
    expect(await app.sql`select from batches`).toHaveLength(2);
  });
});

describe("a damaged archive", () => {
  test.each([60, -40, -1, 0, 500])(
    "beside its segments is not needed, flipped at %p",
    async (at) => {
      await using app = await TestApp.start();
      const session = await app.aSession();
      await sendBatches(app, session, 0, 1, 2);
      await sendImage(app, session, "shot", "x".repeat(300_000));
      await sessionFacts(app.sql);
      const before = await readState(app);
      const { written } = await archived(app);
      for (const { key } of written) await harm(app.objects, key, flipped(at));
      await emptyTables(app.sql);
      const { ofArchives } = await reindex(app);
      expect(ofArchives).toMatchObject({ archives: 0, damaged: written.length, missing: 0 });
      expect(await readState(app)).toEqual(before);
      expect(await app.sql`select from batches`).toHaveLength(3);
    },
  );

  test("of which the segments are gone is taken in, and readers say what is lost", async () => {
    await using app = await TestApp.start();
    const [session, other] = [await app.aSession(), await app.aSession()];
    await sendBatches(app, session, 0, 1, 2);
    await sendBatches(app, other, 3);
    await sessionFacts(app.sql);
    const before = await readState(app);
    const { written } = await archived(app);
    await dropArchived(app);
    const sessions = written.find(({ archive }) => archive.kind === "sessions");
    const [piece] = sessions?.pieces ?? [];
    // A byte of the frame, which is right before the index.
    await harm(app.objects, sessions?.key ?? "", flipped((piece?.indexStart ?? 0) - 10));
    await emptyTables(app.sql);
    const { ofArchives } = await reindex(app);
    expect(ofArchives).toMatchObject({ archives: written.length, damaged: 1, missing: 0 });
    const after = await readState(app);
    expect(after.sessions).toEqual(before.sessions);
    expect(after.batches).toEqual([["lost", "lost", "lost"], before.batches[1] ?? []]);
    expect((await rowsOf(app)).batches).toBe(4);
    const marks = await app.sql`select from unreadable_segments`;
    expect(marks).toHaveLength(1);
    expect(await reindex(app)).toMatchObject({ ofArchives: { archives: 0, damaged: 1 } });
  });
});
