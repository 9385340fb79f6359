import { describe, expect, test } from "bun:test";

import { leaseSegments } from "../../src/archives/leased-segments.ts";
import { segmentIdOf } from "../../src/log/segment.ts";
import { type ObjectStore } from "../../src/platform/objects/objects.ts";
import { WrappedObjects } from "../../src/platform/objects/wrapped-objects.ts";
import { WorkMetrics } from "../../src/platform/telemetry/work-metrics.ts";
import { TestApp } from "../support/app.ts";
import {
  archiveAll,
  archivedOf,
  archiverOf,
  batchRows,
  segmentStates,
  toBytes,
} from "../support/archives.ts";
import { aBatch } from "../support/batches.ts";
import { flipped, gone, harm, keptLog } from "../support/damage.ts";
import { sessionFacts } from "../support/ingest-tables.ts";
import { putSegment } from "../support/made-segment.ts";
import { NO_GRACE, batch as aRecord, orphansOf } from "../support/orphans.ts";
import { batch, marksOf, sendBatches } from "../support/verified.ts";

const MIB = 2 ** 20;
// Within the body of a segment's first record.
const IN_FIRST = 100;
const IN_ROW = 60;

describe("of a segment with a damaged record", () => {
  test("all else is archived, and the rest once it can be read again", async () => {
    await using app = await TestApp.start();
    const session = await app.aSession();
    const salts = ["0", "1", "2"];
    const records = salts.map((salt) => aRecord(session, salt));
    const { key } = await putSegment(app.objects, records);
    await orphansOf(app, NO_GRACE).look();
    await app.sql`update segments set facts_written = true`;
    let whole = new Uint8Array();
    await harm(app.objects, key, (bytes) => {
      whole = Uint8Array.from(bytes);
      return flipped(IN_FIRST)(bytes);
    });
    const { lines, log } = keptLog();
    await archiveAll(app, { log });
    expect(lines).toEqual([expect.objectContaining({ key, damaged: 1 })]);
    expect(await batchRows(app)).toBe(1);
    expect(await marksOf(app)).toEqual([key]);
    expect(await isArchived(app, key)).toBe(false);
    const all = salts.map((salt) => aBatch({ salt }));
    expect(toBytes(await archivedOf(app, session))).toEqual(all.slice(1));

    await harm(app.objects, key, () => whole);
    await app.sql`delete from unreadable_segments`;
    await archiveAll(app);
    expect(await batchRows(app)).toBe(0);
    expect(toBytes(await archivedOf(app, session))).toEqual(all);
    expect(await isArchived(app, key)).toBe(true);
  });

  test("the row in that record comes along once it can be read again", async () => {
    await using app = await TestApp.start();
    const session = await app.aSession();
    const [row] = await app.sql<[{ row: object }]>`
      select to_jsonb(sessions) || jsonb_build_object('id', id::text) as row from sessions where id = ${session.sessionID}`;
    const start = { kind: "session", sessionID: session.sessionID, body: row.row } as const;
    const { key } = await putSegment(app.objects, [start, aRecord(session)]);
    await app.sql`update segments set archived_at = now()`;
    await orphansOf(app, NO_GRACE).look();
    await app.sql`update segments set facts_written = true`;
    await harm(app.objects, key, flipped(IN_ROW));
    await archiveAll(app);
    expect(await archivedOf(app, session)).toMatchObject({ rows: [], batches: [{}] });
    expect(await isArchived(app, key)).toBe(false);
    await harm(app.objects, key, flipped(IN_ROW));
    await app.sql`delete from unreadable_segments`;
    await archiveAll(app);
    expect(await isArchived(app, key)).toBe(true);
    expect(await archivedOf(app, session)).toMatchObject({
      rows: [{ id: session.sessionID }],
      batches: [{}],
    });
  });

  test("whose object is gone nothing is archived, and the others are", async () => {
    await using app = await TestApp.start();
    const session = await app.aSession();
    const [, key = ""] = await sendBatches(app, session, 0, 1, 2);
    await sessionFacts(app.sql);
    await harm(app.objects, key, gone);
    await archiveAll(app);
    expect(toBytes(await archivedOf(app, session))).toEqual([batch(0), batch(2)]);
    expect(await batchRows(app)).toBe(1);
    expect(await marksOf(app)).toEqual([key]);
  });
});

describe("nothing is archived", () => {
  test("before its facts are written, and before it is old enough", async () => {
    await using app = await TestApp.start();
    await sendBatches(app, await app.aSession(), 0);
    await sessionFacts(app.sql);
    await app.sql`update segments set facts_written = false`;
    expect(await archiverOf(app).step()).toBe(false);
    await app.sql`update segments set facts_written = true`;
    expect(await archiverOf(app, { afterS: 3600 }).step()).toBe(false);
  });

  test("while it is little and young enough to wait for more", async () => {
    await using app = await TestApp.start();
    await sendBatches(app, await app.aSession(), 0);
    await sessionFacts(app.sql);
    await app.sql`update segments set created_at = now() - interval '2 hours'`;
    expect(await archiverOf(app, { afterS: 3600 }).step()).toBe(false);
    await app.sql`update segments set created_at = now() - interval '7261 seconds'`;
    expect(await archiverOf(app, { afterS: 3600 }).step()).toBe(true);
  });

  test("while a serving process of an older version was seen within ten minutes", async () => {
    await using app = await TestApp.start();
    await sendBatches(app, await app.aSession(), 0);
    await sessionFacts(app.sql);
    const seen = async (seconds: number) =>
      await app.sql`
        insert into session_worker_leases as lease (number, holder, leased_until)
        values (1, gen_random_uuid(), now() + ${60 - seconds} * interval '1 second')
        on conflict (number) do update set holder = excluded.holder, leased_until = excluded.leased_until`;
    await seen(0);
    expect(await archiverOf(app).step()).toBe(false);
    await seen(595);
    expect(await archiverOf(app).step()).toBe(false);
    await seen(605);
    expect(await archiverOf(app).step()).toBe(true);
  });
});

test("a step takes as much as fits into its memory, from the oldest on", async () => {
  await using app = await TestApp.start();
  await sendBatches(app, await app.aSession(), 0, 1, 2, 3);
  await sessionFacts(app.sql);
  const ids = (await segmentStates(app)).map(({ key }) => segmentIdOf(key) ?? "");
  await app.sql`update segments set bytes = ${30 * MIB}`;
  const lease = async () =>
    (await leaseSegments(app.sql, { afterS: 0, segmentsMax: 1000 })).map(({ id }) => id);
  expect(await lease()).toEqual(ids.slice(0, 2));
  await app.sql`update segments set bytes = ${100 * MIB}`;
  expect(await lease()).toEqual(ids.slice(2, 3));
  await app.sql`update segments set bytes = 100, records = 30000`;
  expect(await lease()).toEqual(ids.slice(3, 4));
  expect(await leaseSegments(app.sql, { afterS: 0, segmentsMax: 1 })).toHaveLength(1);
});

test("a segment that fails a step again and again ends up alone, so that the others are archived", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  const [, key = ""] = await sendBatches(app, session, 0, 1, 2, 3);
  await sessionFacts(app.sql);
  const metrics = new WorkMetrics();
  const objects = new Refusing(app.objects, key);
  const archiver = archiverOf({ sql: app.sql, objects }, { metrics });
  for (let tries = 0; tries < 60; tries++) {
    const isMore = await archiver.step().catch(() => undefined);
    // A minute passes.
    if (isMore === false) await app.sql`update segments set leased_until = null`;
  }
  expect(toBytes(await archivedOf(app, session))).toEqual([batch(0), batch(2), batch(3)]);
  expect(await batchRows(app)).toBe(1);
  const text = await metrics.registry.metrics();
  expect(text).toMatch(/^floodgate_archive_failures_total [1-9]/m);
});

async function isArchived(app: TestApp, key: string): Promise<boolean | undefined> {
  return (await segmentStates(app)).find((one) => one.key === key)?.archived;
}

class Refusing extends WrappedObjects {
  readonly #key: string;

  constructor(inner: ObjectStore, key: string) {
    super(inner);
    this.#key = key;
  }

  override async read(...args: Parameters<ObjectStore["read"]>): Promise<Uint8Array> {
    if (args[0] === this.#key) throw new Error("refused");
    return await super.read(...args);
  }
}
