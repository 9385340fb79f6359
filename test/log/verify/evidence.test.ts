import { rm } from "node:fs/promises";
import { join } from "node:path";

import { describe, expect, test } from "bun:test";

import { FileObjects } from "../../../src/platform/objects/file-objects.ts";
import { TestApp } from "../../support/app.ts";
import { segmentKeys } from "../../support/damage.ts";
import { failure } from "../../support/failure.ts";
import { FaultyObjects } from "../../support/faulty-objects.ts";
import { ingestTables } from "../../support/ingest-tables.ts";
import { batch, sendBatches, takenOut, verified } from "../../support/verified.ts";

describe("nothing is taken out", () => {
  test("when the store has no object that a row names, as an unmounted disk or another bucket", async () => {
    await using app = await TestApp.start();
    const session = await app.aSession();
    await sendBatches(app, session, 0, 1);
    await verified(app);
    const before = await ingestTables(app.sql);
    const elsewhere = join(app.config.dataDir, "elsewhere");
    await using objects = await FileObjects.open(elsewhere);
    // An object that no row names is no evidence.
    await objects.put("segments/2026/01/02/03/0199c7e2-8c00-7abc-8def-000000000001", batch(1));
    const { found } = await verified({ sql: app.sql, objects });
    expect(found).toHaveLength(before.segments.length + 1);
    const error = await failure(takenOut({ sql: app.sql, objects }));
    expect(String(error)).toContain("nothing is taken out");
    expect(await ingestTables(app.sql)).toEqual(before);
    expect((await verified(app)).found).toEqual([]);
  });

  test("when the folder of all objects goes in the middle", async () => {
    await using app = await TestApp.start();
    const session = await app.aSession();
    await sendBatches(app, session, 0, 1);
    const ids = (await segmentKeys(app.objects)).map((key) => key.slice(-36));
    await app.sql`insert into unreadable_segments (segment_id) select unnest(${ids}::uuid[])`;
    const tables = await ingestTables(app.sql);
    const objects = new FaultyObjects();
    objects.beforeRead = async () =>
      await rm(join(app.config.dataDir, "objects"), { recursive: true, force: true });
    const error = await failure(
      takenOut({
        sql: app.sql,
        objects: objects.wrap(await FileObjects.open(join(app.config.dataDir, "objects"))),
      }),
    );
    expect(String(error)).toMatch(/objects is gone/);
    expect(await ingestTables(app.sql)).toEqual(tables);
  });
});
