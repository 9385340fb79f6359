import { beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { gzipSync } from "node:zlib";
import { pino } from "pino";

import { ReadFacts } from "../../../src/ingest/read-facts.ts";
import { Reindex } from "../../../src/log/recovery/reindex.ts";
import { segmentKey } from "../../../src/log/segment.ts";
import { objectOf } from "../../support/answers.ts";
import { TestApp, type TestSession } from "../../support/app.ts";
import { aBatch } from "../../support/batches.ts";
import { runCommand } from "../../support/command.ts";
import { FaultyObjects } from "../../support/faulty-objects.ts";
import { aFile, imageList, imageOf, imagesOf, projectField, upload } from "../../support/images.ts";
import {
  emptyTables,
  ingestTables,
  reindex,
  sessionFacts,
  untilIndexed,
} from "../../support/ingest-tables.ts";
import { aProject } from "../../support/projects.ts";
import { Random } from "../../support/random.ts";
import { envOf } from "../../support/server-process.ts";
import { WEB_VECTORS } from "../../support/tracker-requests.ts";

// The first run on a machine may install the S3 server.
setDefaultTimeout(120_000);

const LOG = pino({ level: "silent" });
const SMALL_SEGMENTS = { COMMIT_BYTES: String(128 * 1024) };
const MALFORMED = new Uint8Array(500).fill(255);
const LARGE = new Random(7).bytes(700_000);
const NAMES = ["small-0", "small-1", "empty", "large", "1-1.gz", "shot"];

type Tables = Awaited<ReturnType<typeof ingestTables>>;

describe.each(["files", "s3"] as const)("of real traffic, with objects in %s", (store) => {
  const app = TestApp.forTests({ store, env: SMALL_SEGMENTS });
  let sessions: TestSession[];
  let before: Tables;
  let readBefore: Awaited<ReturnType<typeof readBack>>;

  beforeAll(async () => {
    sessions = await sendTraffic(app);
    // The refused form's chunks are nobody's, and nobody waited for them.
    await untilIndexed(app);
    await sessionFacts(app.sql);
    before = await ingestTables(app.sql);
    readBefore = await readBack(app, sessions);
  });

  test("an emptied database gets every row back as it was, and the same bytes are read", async () => {
    await emptyTables(app.sql);
    const done = await reindex(app);
    expect(await ingestTables(app.sql)).toEqual(before);
    expect(await readBack(app, sessions)).toEqual(readBefore);
    expect(done).toMatchObject({ damaged: 0, known: 0, contested: [] });
    expect(done.segments).toBe(before.segments.length);
    expect(done.segments).toBeGreaterThan(20);
    expect(before.batches.length).toBeGreaterThan(20);
    expect(before.contents.length).toBe(NAMES.length + 1);
    expect(before.uses.length).toBe(NAMES.length + 2);
  });

  test("done again changes nothing", async () => {
    const { known, segments, records } = await reindex(app);
    expect({ known, segments, records }).toEqual({
      known: before.segments.length,
      segments: 0,
      records: 0,
    });
    expect(await ingestTables(app.sql)).toEqual(before);
  });

  test("by two at once, one of them broken off and begun again, it is the same", async () => {
    await emptyTables(app.sql);
    const { sql, objects } = app;
    let reads = 0;
    const stopping = new FaultyObjects();
    stopping.beforeRead = () => (++reads > 15 ? ends() : undefined);
    stopping.beforePing = ends;
    const broken = new Reindex({
      sql,
      objects: stopping.wrap(objects),
      log: LOG,
      facts: new ReadFacts(sql),
    }).run();
    const [, outcome] = await Promise.allSettled([reindex(app), broken]);
    expect(outcome.status).toBe("rejected");
    await reindex(app);
    expect(await ingestTables(sql)).toEqual(before);
  });

  test("the next project gets a new id, and what comes later joins what was there", async () => {
    await emptyTables(app.sql);
    await reindex(app);
    const ids = before.projects.map(({ row }) => row.id);
    const { id } = await aProject(app);
    expect(id).toBe(Math.max(...ids) + 1);
    const [session] = sessions;
    if (session === undefined) throw new Error("no session");
    const batches = await app.batches(session);
    expect((await app.append(session, aBatch({ salt: "later" }))).status).toBe(200);
    // A duplicate of what was restored.
    expect((await app.append(session, aBatch({ salt: "s0-b0" }))).status).toBe(200);
    expect(await app.batches(session)).toEqual([...batches, aBatch({ salt: "later" })]);
  });
});

describe("objects that are no whole segments", () => {
  test("are reported, and the others indexed", async () => {
    await using app = await TestApp.start();
    const session = await app.aSession();
    for (const salt of ["a", "b", "c"]) await app.append(session, aBatch({ salt }));
    const before = await ingestTables(app.sql);
    const whole = await aStoredSegment(app);
    const damaged = new Map([
      ["segments/readme.txt", Buffer.from("hello")],
      ["segments/2026/01/02/03/notes", whole],
      [keyAt(1), new Uint8Array(0)],
      [keyAt(2), whole.subarray(0, -1)],
      [keyAt(3), whole.subarray(0, 100)],
      [keyAt(4), whole.map((byte, at) => (at === whole.length - 40 ? byte ^ 1 : byte))],
      // A whole one under the key of another.
      [keyAt(5), whole],
      [keyAt(6), new Random(1).bytes(100_000)],
      // Another length than any footer has.
      [keyAt(7), whole.map((byte, at) => (at === whole.length - 17 ? 255 : byte))],
    ]);
    for (const [key, bytes] of damaged) await app.objects.put(key, bytes);
    await emptyTables(app.sql);
    const done = await reindex(app);
    expect(done.damaged).toBe(damaged.size);
    expect(done.problems.map(({ key }) => key).toSorted()).toEqual([...damaged.keys()].toSorted());
    expect(await ingestTables(app.sql)).toEqual(before);
  });

  test("make the command end with 1, and it prints what it did", async () => {
    await using app = await TestApp.start();
    const session = await app.aSession();
    await app.append(session, aBatch());
    const before = await ingestTables(app.sql);
    await emptyTables(app.sql);
    const good = await runCommand(["reindex"], envOf(app));
    expect(good).toEqual({
      code: 0,
      out: [
        "3 segments with 3 records indexed, 0 were known, 0 are damaged, 0 are missing",
        "0 archives with 0 records indexed, 0 were known, 0 are damaged, 0 are missing",
        "",
      ].join("\n"),
      err: "",
    });
    expect(await ingestTables(app.sql)).toEqual(before);
    await app.objects.put(keyAt(1), Buffer.from("foreign"));
    const bad = await runCommand(["reindex", "--json"], envOf(app));
    expect(bad.code).toBe(1);
    expect(JSON.parse(bad.out)).toEqual({
      objects: 4,
      known: 3,
      segments: 0,
      records: 0,
      damaged: 1,
      missing: 0,
      archives: {
        objects: 0,
        known: 0,
        archives: 0,
        records: 0,
        replaced: 0,
        damaged: 0,
        missing: 0,
      },
      contested: [],
      keys: [keyAt(1)],
      problems: [{ key: keyAt(1), reason: "not a segment: the magic is missing" }],
    });
    expect(bad.err).toContain(`${keyAt(1)}: not a segment: the magic is missing`);
  });
});

/** Everything that ingest takes, over many segments. */
async function sendTraffic(app: TestApp): Promise<TestSession[]> {
  const android = await aProject(app, {
    platform: "android",
    sampleRate: 50,
    beaconBytesMax: 70_000,
  });
  await aProject(app, { active: false, id: 12, key: "twelve" });
  const web = await aProject(app, {
    platform: "web",
    recordCanvas: true,
    canvasQuality: "medium",
    canvasFps: 7,
    sessionMs: 60_000,
  });
  await app.start({ projectID: web.projectID, trackerVersion: "19.0.1" }, "/v1/web/start");
  const sessions = await Promise.all([
    app.aSession({ userDevice: "iPhone15,2", userID: "ann", performance: { a: [1, "ü"] } }),
    app.aSession({ doNotRecord: true, deviceMemory: 2 ** 40, width: 390, height: 844 }),
    app.aSession({
      timezone: "UTC+02:00",
      userUUID: crypto.randomUUID(),
      userOSVersion: "17\"'\\",
    }),
  ]);
  await aProject(app, { sampleRate: 1 });
  for (const [nth, session] of sessions.entries()) {
    const batches = Array.from({ length: 12 }, (_, i) => aBatch({ salt: `s${nth}-b${i}` }));
    await Promise.all(batches.map(async (batch) => await app.append(session, batch)));
    // All of it once more, in other segments.
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
  await upload(app, third, [aFile("large", LARGE)]);
  // Known bytes, whose use a later segment records, and other bytes under a known name.
  await upload(app, third, [aFile("small-0"), aFile("small-1", "other")]);
  await upload(app, third, [aFile("small-0"), aFile("large", LARGE)]);
  const frame = Buffer.alloc(12 + 50);
  frame.writeUInt32LE(50, 8);
  await upload(app, first, [aFile("1-1.gz", gzipSync(frame))]);
  const frames = [projectField(app), { field: "type", value: "frames" }];
  await upload(app, third, [aFile("shot", new Random(3).bytes(50_000))], { fields: frames });
  // Nothing of it is stored but chunks.
  await upload(app, third, [aFile("refused", new Random(4).bytes(200_000))], {
    fields: [{ field: "projectID", value: String(android.projectID) }],
  });
  return sessions;
}

function ends(): never {
  throw new Error("the program ends here");
}

async function readBack(app: TestApp, sessions: TestSession[]) {
  return {
    sessions: await Promise.all(
      sessions.map(async ({ sessionID }) => await objectOf(app.fetch(`/v1/sessions/${sessionID}`))),
    ),
    batches: await Promise.all(
      ["", "?quarantined=true"].map(
        async (query) => await Promise.all(sessions.map((one) => app.batches(one, query))),
      ),
    ),
    named: await Promise.all(sessions.map(async (one) => await imagesOf(app, one))),
    listed: await Promise.all(sessions.map(async (one) => await imageList(app, one))),
    images: await Promise.all(NAMES.map(async (name) => await imageOf(app, name))),
  };
}

/** The bytes of some segment of the app's. */
async function aStoredSegment({ sql, objects }: TestApp): Promise<Uint8Array> {
  const [row] = await sql<{ id: string; bytes: number }[]>`
    select id, bytes from segments order by id desc limit 1`;
  return await objects.read(segmentKey(row?.id ?? ""), 0, row?.bytes ?? 0);
}

function keyAt(nth: number): string {
  return segmentKey(`0199c7e2-8c00-7abc-8def-${String(nth).padStart(12, "0")}`);
}
