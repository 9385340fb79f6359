import { expect, setDefaultTimeout, test } from "bun:test";

import { Orphans } from "../../../src/log/recovery/orphans.ts";
import { TestApp } from "../../support/app.ts";
import { archived } from "../../support/archive-objects.ts";
import { keptLog } from "../../support/damage.ts";
import { sessionFacts } from "../../support/ingest-tables.ts";
import { NOTHING, NO_GRACE } from "../../support/orphans.ts";
import { sendBatches } from "../../support/verified.ts";

// The first run on a machine may install the S3 server.
setDefaultTimeout(120_000);

test("archives without a row are reported and stay, unless they are about to be deleted", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  await sendBatches(app, session, 0, 1);
  await sessionFacts(app.sql);
  const { written } = await archived(app);
  const { sql, objects } = app;
  const { lines, log } = keptLog("warn");
  let unknown: number | undefined;
  const onUnknownArchives = (count: number) => void (unknown = count);
  const orphans = new Orphans({ sql, objects, log, onUnknownArchives }, NO_GRACE);
  expect(await orphans.look()).toEqual(NOTHING);
  expect({ unknown, lines }).toEqual({ unknown: 0, lines: [] });

  await sql`delete from archives`;
  const keys = written.map(({ key }) => key).toSorted();
  const [first = "", ...others] = keys;
  await sql`insert into object_garbage (key, due_at) values (${first}, now())`;
  await objects.put("archives/1/2026-12-01/notes", Buffer.from("x"));
  expect(await orphans.look()).toEqual(NOTHING);
  expect(unknown).toBe(others.length + 1);
  expect(lines).toEqual([
    expect.objectContaining({
      count: others.length + 1,
      keys: [...others, "archives/1/2026-12-01/notes"].toSorted(),
    }),
  ]);
  const listed = (await Array.fromAsync(objects.list("archives/"))).map(({ key }) => key);
  expect(listed).toEqual([...keys, "archives/1/2026-12-01/notes"].toSorted());
});
