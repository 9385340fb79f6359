import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { gzipSync } from "node:zlib";

import { TestApp, type TestSession } from "../../support/app.ts";
import { archived, dropArchived, writeStep } from "../../support/archive-objects.ts";
import { readState } from "../../support/archived-state.ts";
import { aBatch } from "../../support/batches.ts";
import { aFile, upload } from "../../support/images.ts";
import { emptyTables, reindex, sessionFacts, untilIndexed } from "../../support/ingest-tables.ts";
import { aProject } from "../../support/projects.ts";
import { Random } from "../../support/random.ts";
import { WEB_VECTORS } from "../../support/tracker-requests.ts";

// The first run on a machine may install the S3 server.
setDefaultTimeout(120_000);

const SMALL = { COMMIT_BYTES: String(128 * 1024) };
const MALFORMED = new Uint8Array(500).fill(255);
const NOTHING_WRONG = { damaged: 0, missing: 0, problems: [] };

describe("an emptied database is as it was before", () => {
  test("with segments and archives side by side", async () => {
    await using app = await TestApp.start({ env: SMALL });
    await sendTraffic(app);
    const before = await readState(app);
    const { written } = await archived(app);
    expect(written.length).toBeGreaterThanOrEqual(4);
    expect(await readState(app)).toEqual(before);
    await emptyTables(app.sql);
    const { ofArchives } = await reindex(app);
    expect(ofArchives).toMatchObject({ ...NOTHING_WRONG, archives: written.length, known: 0 });
    expect(await readState(app)).toEqual(before);
    expect(await app.sql`select from batches`).toHaveLength(0);
    const again = await reindex(app);
    expect(again.ofArchives).toMatchObject({
      ...NOTHING_WRONG,
      archives: 0,
      known: written.length,
    });
    expect(await readState(app)).toEqual(before);
  });

  test("with archives alone", async () => {
    await using app = await TestApp.start({ env: SMALL });
    await sendTraffic(app);
    const before = await readState(app);
    await archived(app);
    await dropArchived(app);
    await emptyTables(app.sql);
    const { ofArchives } = await reindex(app);
    expect(ofArchives).toMatchObject(NOTHING_WRONG);
    expect(await readState(app)).toEqual(before);
  });

  test("with the archives of a step that was never committed beside its segments", async () => {
    await using app = await TestApp.start({ env: SMALL });
    await sendTraffic(app);
    const before = await readState(app);
    const { written } = await writeStep(app);
    await emptyTables(app.sql);
    expect((await reindex(app)).ofArchives).toMatchObject({
      ...NOTHING_WRONG,
      archives: written.length,
    });
    expect(await readState(app)).toEqual(before);
  });
});

/** Everything that ingest takes, over many segments. */
async function sendTraffic(app: TestApp): Promise<TestSession[]> {
  await aProject(app, { platform: "android", sampleRate: 50 });
  const sessions = await Promise.all([
    app.aSession({ userDevice: "iPhone15,2", userID: "ann", performance: { a: [1, "ü"] } }),
    app.aSession({ doNotRecord: true, deviceMemory: 2 ** 40, width: 390, height: 844 }),
    app.aSession({ timezone: "UTC+02:00", userUUID: crypto.randomUUID() }),
  ]);
  for (const [nth, session] of sessions.entries()) {
    const batches = Array.from({ length: 12 }, (_, i) => aBatch({ salt: `s${nth}-b${i}` }));
    await Promise.all(batches.map(async (batch) => await app.append(session, batch)));
    await Promise.all(batches.map(async (batch) => await app.append(session, batch)));
    await app.append(session, aBatch({ salt: `late ${nth}` }), "/v1/ios/late");
    await app.append(session, MALFORMED);
    const gzip = { "content-encoding": "gzip" };
    await app.append(session, gzipSync(aBatch({ salt: `gz ${nth}` })), "/v1/ios/append", gzip);
    const visual = { datatype: "visual" };
    await app.append(session, WEB_VECTORS.visual, "/v1/web/i?split=131", visual);
  }
  const [first, , third] = sessions;
  if (first === undefined || third === undefined) throw new Error("no sessions");
  await upload(app, first, [aFile("small-0"), aFile("small-1"), aFile("empty", "")]);
  await upload(app, third, [aFile("large", new Random(7).bytes(700_000))]);
  await upload(app, third, [aFile("small-0"), aFile("small-1", "other")]);
  // The record of a known image goes into the next segment that is written anyway.
  await app.append(third, aBatch({ salt: "last" }));
  await untilIndexed(app);
  await sessionFacts(app.sql);
  return sessions;
}
