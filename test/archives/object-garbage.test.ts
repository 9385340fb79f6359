import { describe, expect, test } from "bun:test";

import { archiveKey, archiveNameOf } from "../../src/archives/archive-key.ts";
import { ArchiveWriter } from "../../src/archives/archive-writer.ts";
import { Swept, keepObjects, replaceObjects } from "../../src/archives/object-garbage.ts";
import { TestApp } from "../support/app.ts";
import {
  archiveAll,
  archiveId,
  archiveKeys,
  archiveRows,
  dropAll,
  garbageOf,
  passDays,
  sweep,
} from "../support/archives.ts";
import { gone, harm, keptLog, segmentKeys } from "../support/damage.ts";
import { failure } from "../support/failure.ts";
import { sessionFacts } from "../support/ingest-tables.ts";
import { sendBatches } from "../support/verified.ts";

const DAY = "2026-12-01";

/** Stores an archive that is made of these, like a process that died before it swapped the rows. */
async function leftBehind(app: TestApp, sources: string[], projectId = 1): Promise<string> {
  const id = Bun.randomUUIDv7();
  const key = archiveKey({ id, projectId, day: DAY });
  using _ = await garbageOf(app).begin([key]);
  await app.objects.put(key, archiveBytes(id, sources));
  await app.sql`update object_garbage set due_at = now() where key = ${key}`;
  return key;
}

function archiveBytes(id: string, sources: string[]): Uint8Array {
  const writer = new ArchiveWriter(id, sources);
  return Buffer.concat([writer.begin(), writer.end()]);
}

/** Inserts the row of an archive whose object is stored, too. */
async function anArchive(app: TestApp, sources: string[]): Promise<string> {
  const id = Bun.randomUUIDv7();
  const key = archiveKey({ id, projectId: 1, day: DAY });
  await app.objects.put(key, archiveBytes(id, sources));
  await app.sql`
    insert into archives (id, project_id, day, kind, bytes, records) values (${id}, 1, ${DAY}, 'sessions', 100, 0)`;
  return key;
}

/** Replaces archives by another one, as a merge does. */
async function replace(app: TestApp, keys: string[], by: string[]): Promise<void> {
  await app.sql.begin(async (transaction) => {
    await transaction`delete from archives where id = any(${keys.map(archiveId)})`;
    await replaceObjects(transaction, keys, by.map(archiveId), 0);
  });
}

/** Returns the app's segments and their ids. */
async function segmentsOf(app: TestApp): Promise<{ ids: string[]; keys: string[] }> {
  await sendBatches(app, await app.aSession(), 1, 2);
  await sessionFacts(app.sql);
  const rows = await app.sql<{ id: string }[]>`select id from segments order by id`;
  return { ids: rows.map(({ id }) => id), keys: await segmentKeys(app.objects) };
}

describe("an archive that was written and never got its row", () => {
  test("is deleted if all that it was made of is there", async () => {
    await using app = await TestApp.start();
    const { ids } = await segmentsOf(app);
    const source = await anArchive(app, []);
    await leftBehind(app, [...ids, archiveId(source)]);
    await sweep(app);
    expect(await archiveKeys(app)).toEqual([source]);
    expect(await app.sql`select from object_garbage`).toHaveLength(0);
  });

  test("is deleted if its segments were archived by others, even when these are gone since", async () => {
    await using app = await TestApp.start();
    const { ids } = await segmentsOf(app);
    await archiveAll(app);
    const rows = await archiveRows(app);
    await leftBehind(app, ids);
    await sweep(app);
    expect(await archiveKeys(app)).toEqual(rows);
    await passDays(app, 2);
    expect(await dropAll(app)).toBeGreaterThan(0);
    await leftBehind(app, ids);
    await sweep(app);
    expect(await archiveKeys(app)).toEqual(rows);
  });

  test("is deleted if its archives were merged into others, however often", async () => {
    await using app = await TestApp.start();
    const [first, other] = [await anArchive(app, []), await anArchive(app, [])];
    const left = await leftBehind(app, [first, other].map(archiveId));
    await app.sql`update object_garbage set due_at = now() + interval '1 hour'`;
    const merged = await anArchive(app, [first, other].map(archiveId));
    await replace(app, [first, other], [merged]);
    await sweep(app);
    const last = await anArchive(app, [archiveId(merged)]);
    await replace(app, [merged], [last]);
    await sweep(app);
    expect(await archiveKeys(app)).toEqual([left, last].toSorted());
    await app.sql`update object_garbage set due_at = now() where key = ${left}`;
    await sweep(app);
    expect(await archiveKeys(app)).toEqual([last]);
  });

  test.each<[string, (app: TestApp, ids: string[], keys: string[]) => Promise<unknown>]>([
    ["a segment's object", async (app, _ids, keys) => await harm(app.objects, keys[1] ?? "", gone)],
    [
      "a segment's row",
      async ({ sql }, ids) => await sql`delete from segments where id = ${ids[1] ?? ""}`,
    ],
    [
      "a segment, which was deleted as an orphan",
      async ({ sql }, ids) =>
        await sql`update segments set deleted = true where id = ${ids[1] ?? ""}`,
    ],
  ])(
    "is kept if %s is gone, as in a database that was restored, and reported",
    async (_what, lose) => {
      await using app = await TestApp.start();
      const { ids, keys } = await segmentsOf(app);
      const left = await leftBehind(app, ids);
      await lose(app, ids, keys);
      const { lines, log } = keptLog();
      await sweep(app, log);
      expect(await archiveKeys(app)).toEqual([left]);
      expect(lines).toEqual([expect.objectContaining({ key: left })]);
      expect(await garbageOf(app).kept()).toBe(1);
      expect(await garbageOf(app).overdueSeconds()).toBe(0);
    },
  );

  test("is kept if an archive that it was made of is unknown, or its own end is damaged", async () => {
    await using app = await TestApp.start();
    const left = await leftBehind(app, [Bun.randomUUIDv7()]);
    const damaged = await leftBehind(app, []);
    await harm(app.objects, damaged, (bytes) => bytes.fill(0, bytes.length - 10));
    await sweep(app);
    expect(await archiveKeys(app)).toEqual([left, damaged].toSorted());
    expect(await garbageOf(app).kept()).toBe(2);
  });

  test("is no garbage any more if it got its row otherwise", async () => {
    await using app = await TestApp.start();
    const left = await leftBehind(app, []);
    const { id, projectId, day } = archiveNameOf(left) ?? { id: "", projectId: 0, day: "" };
    await app.sql`
      insert into archives (id, project_id, day, kind, bytes, records) values (${id}, ${projectId}, ${day}, 'sessions', 1, 0)`;
    await sweep(app);
    expect(await archiveKeys(app)).toEqual([left]);
    expect(await app.sql`select from object_garbage`).toHaveLength(0);
  });
});

describe("an archive that was replaced", () => {
  test("is deleted after the grace, and remembered for those that name it", async () => {
    await using app = await TestApp.start();
    const [first, by] = [await anArchive(app, []), await anArchive(app, [])];
    await replaceObjects(app.sql, [first], [archiveId(by)], 3600);
    await app.sql`delete from archives where id = ${archiveId(first)}`;
    await sweep(app);
    expect(await archiveKeys(app)).toEqual([first, by].toSorted());
    await app.sql`update object_garbage set due_at = now()`;
    await sweep(app);
    expect(await archiveKeys(app)).toEqual([by]);
    expect(await app.sql`select removed from object_garbage`).toMatchObject([{ removed: true }]);
    await app.sql`update object_garbage set due_at = now()`;
    await sweep(app);
    expect(await app.sql`select from object_garbage`).toHaveLength(0);
  });

  test("is kept while none that has all of it has a row, and deleted if nothing of it is needed", async () => {
    await using app = await TestApp.start();
    const [first, second, by] = [
      await anArchive(app, []),
      await anArchive(app, []),
      await anArchive(app, []),
    ];
    await replace(app, [first], [by]);
    await replace(app, [second], []);
    await app.sql`delete from archives where id = ${archiveId(by)}`;
    await sweep(app);
    expect(await archiveKeys(app)).toEqual([first, by].toSorted());
    expect(await garbageOf(app).kept()).toBe(1);
  });
});

test("what is being written is not deleted, and a commit after it was deleted fails", async () => {
  await using app = await TestApp.start();
  const key = archiveKey({ id: Bun.randomUUIDv7(), projectId: 1, day: DAY });
  using _ = await garbageOf(app).begin([key]);
  await app.objects.put(key, archiveBytes(archiveId(key), []));
  await sweep(app);
  expect(await archiveKeys(app)).toEqual([key]);
  await app.sql`update object_garbage set due_at = now()`;
  await sweep(app);
  expect(await archiveKeys(app)).toEqual([]);
  expect(await failure(keepObjects(app.sql, [key]))).toBeInstanceOf(Swept);
});
