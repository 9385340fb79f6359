import { expect, setDefaultTimeout, test } from "bun:test";
import { pino } from "pino";

import { ReadFacts } from "../../../src/ingest/read-facts.ts";
import { reindexStore } from "../../../src/archives/recovery/reindex-store.ts";
import { segmentKey } from "../../../src/log/segment.ts";
import { TestApp } from "../../support/app.ts";
import { archived } from "../../support/archive-objects.ts";
import { readState } from "../../support/archived-state.ts";
import { archiveAll, dropAll } from "../../support/archives.ts";
import { runCommand } from "../../support/command.ts";
import { flipped, gone, harm } from "../../support/damage.ts";
import { FaultyObjects } from "../../support/faulty-objects.ts";
import { emptyTables, reindex, sessionFacts } from "../../support/ingest-tables.ts";
import { envOf } from "../../support/server-process.ts";
import { marksOf, sendBatches, sendImage } from "../../support/verified.ts";

// The first run on a machine may install the S3 server.
setDefaultTimeout(120_000);

const LOG = pino({ level: "silent" });

test("a database restored to a time before everything was archived misses no segment", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  const kept = await sendBatches(app, session, 0, 1, 2);
  await sessionFacts(app.sql);
  const before = await readState(app);
  const tables = ["segments", "batches"];
  for (const name of tables)
    await app.sql`create table ${app.sql(`${name}_before`)} as select * from ${app.sql(name)}`;
  await archiveAll(app);
  await dropAll(app);
  for (const name of [...tables, "archives", "session_pieces", "object_garbage"])
    await app.sql`delete from ${app.sql(name)}`;
  for (const name of tables)
    await app.sql`insert into ${app.sql(name)} select * from ${app.sql(`${name}_before`)}`;
  const done = await reindex(app);
  expect(done).toMatchObject({ missing: 0, damaged: 0, problems: [] });
  expect(done.ofArchives).toMatchObject({ missing: 0, damaged: 0 });
  expect(await readState(app)).toEqual(before);
  expect(
    await app.sql`select from segments where id = any(${kept.map((key) => key.slice(-36))})`,
  ).toHaveLength(0);
  expect(await marksOf(app)).toEqual(expect.arrayContaining(kept));
});

test("segments that are missing and in no archive are still missing", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  const [first = ""] = await sendBatches(app, session, 0, 1);
  await sessionFacts(app.sql);
  await archived(app, [first.slice(-36)]);
  const [lost = ""] = await sendBatches(app, session, 2);
  for (const key of [first, lost]) await harm(app.objects, key, gone);
  expect(await reindex(app)).toMatchObject({
    missing: 1,
    problems: [{ key: lost, reason: "the object is gone" }],
  });
});

test("what a working process has archived and dropped is restored", async () => {
  await using app = await TestApp.start();
  const [session, other] = [await app.aSession({ userID: "ann" }), await app.aSession()];
  await sendBatches(app, session, 0, 1, 2);
  await sendBatches(app, other, 3);
  await archiveAll(app);
  await sendBatches(app, session, 4, 5);
  await archiveAll(app);
  await dropAll(app);
  await sendBatches(app, session, 6);
  await sessionFacts(app.sql);
  const before = await readState(app);
  const batches = await app.batches(session);
  expect(batches).toHaveLength(6);
  await emptyTables(app.sql);
  const done = await reindex(app);
  expect(done).toMatchObject({ missing: 0, damaged: 0 });
  expect(done.ofArchives).toMatchObject({ missing: 0, damaged: 0, problems: [] });
  expect(await readState(app)).toEqual(before);
  expect(await app.batches(session)).toEqual(batches);
  // The archiver finds nothing to move but what is left in segments.
  await archiveAll(app);
  expect(await readState(app)).toEqual(before);
});

test("by two at once, one of them broken off at any read, it is the same", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession({ userID: "ann" });
  await sendBatches(app, session, 0, 1, 2);
  await sendImage(app, session, "shot", "x".repeat(300_000));
  await sessionFacts(app.sql);
  const before = await readState(app);
  await archived(app);
  const { sql } = app;
  for (let reads = 1, isBroken = true; isBroken; reads += 3) {
    await emptyTables(sql);
    const objects = new FaultyObjects();
    let read = 0;
    objects.beforeRead = () => {
      if (++read > reads) throw new Error("the program ends here");
    };
    objects.beforePing = () => {
      throw new Error("the program ends here");
    };
    const notes = () => new ReadFacts(sql);
    const broken = reindexStore({
      sql,
      objects: objects.wrap(app.objects),
      log: LOG,
      notes,
      graceS: 600,
    });
    const [whole, outcome] = await Promise.allSettled([reindex(app), broken]);
    expect(whole.status).toBe("fulfilled");
    isBroken = outcome.status === "rejected";
    await reindex(app);
    expect(await readState(app)).toEqual(before);
  }
});

test("the command says what it did with archives, and ends with 1 if one is damaged", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  await sendBatches(app, session, 0, 1);
  await sessionFacts(app.sql);
  const { written, segments } = await archived(app);
  for (const id of segments) await app.objects.remove(segmentKey(id));
  await emptyTables(app.sql);
  expect(await runCommand(["reindex"], envOf(app))).toEqual({
    code: 0,
    out: [
      "0 segments with 0 records indexed, 0 were known, 0 are damaged, 0 are missing",
      "2 archives with 4 records indexed, 0 were known, 0 are damaged, 0 are missing",
      "",
    ].join("\n"),
    err: "",
  });
  const [bad, lost] = written;
  await harm(app.objects, bad?.key ?? "", flipped(60));
  await harm(app.objects, lost?.key ?? "", gone);
  const json = await runCommand(["reindex", "--json"], envOf(app));
  expect(json.code).toBe(1);
  expect(JSON.parse(json.out)).toMatchObject({
    archives: {
      objects: 1,
      known: 1,
      archives: 0,
      records: 0,
      replaced: 0,
      damaged: 1,
      missing: 1,
    },
    keys: [bad?.key, lost?.key],
  });
});
