import { gzipSync } from "node:zlib";
import { describe, expect, setDefaultTimeout, test } from "bun:test";

import { FLAG } from "../../src/log/record.ts";
import { batchKindOf } from "../../src/log/batch-kind.ts";
import { WorkMetrics } from "../../src/platform/telemetry/work-metrics.ts";
import { TestApp, type TestSession } from "../support/app.ts";
import {
  archiveAll,
  archiveFooter,
  archiveKeys,
  archiveRows,
  archivedOf,
  archiverOf,
  batchRows,
  segmentStates,
  toBytes,
} from "../support/archives.ts";
import { aBatch } from "../support/batches.ts";
import { segmentKeys } from "../support/damage.ts";
import { eventually } from "../support/eventually.ts";
import { imageOf, sha256Of } from "../support/images.ts";
import { storedBefore } from "../support/images-before.ts";
import { NO_GRACE, orphansOf } from "../support/orphans.ts";
import { aProject } from "../support/projects.ts";
import { ServerProcess, envOf } from "../support/server-process.ts";
import { batch, sendBatches, sendImage } from "../support/verified.ts";
import { encodeWebBatch, encodeWebMessage } from "../support/web-batches.ts";
import { aPage } from "../support/web-starts.ts";

// The first run on a machine may install the S3 server.
setDefaultTimeout(120_000);

const GZIP = { "content-encoding": "gzip" };
const NO_FRAMING = Buffer.from("nothing that could be read");

async function send(app: TestApp, session: TestSession, ...args: Parameters<typeof sendOne>[2][]) {
  for (const one of args) await sendOne(app, session, one);
}

async function sendOne(
  app: TestApp,
  session: TestSession,
  { body, path, headers }: { body: Uint8Array; path?: string; headers?: Record<string, string> },
): Promise<void> {
  const answer = await app.append(session, body, path, headers);
  expect(answer.status).toBe(200);
}

describe.each(["files", "s3"] as const)("with objects in %s", (store) => {
  test("every batch that a server took in is in an archive once, inflated and in order, and nowhere else", async () => {
    await using app = await TestApp.start({ store });
    const mobile = await app.aSession();
    const plain = aBatch({ salt: "plain" });
    const zipped = aBatch({ salt: "zipped" });
    const late = aBatch({ salt: "late", messages: 3 });
    await send(
      app,
      mobile,
      { body: plain },
      { body: gzipSync(zipped), headers: GZIP },
      { body: late, path: "/v1/ios/late" },
      { body: NO_FRAMING },
      // Sent again, as it was and in another coding.
      { body: plain },
      { body: gzipSync(plain), headers: GZIP },
    );
    const { projectKey } = await aProject(app, { platform: "web" });
    const page = await aPage(app, { projectKey });
    const web = encodeWebBatch([encodeWebMessage(61, 1, "a".repeat(50_000), "https://a.b")]);
    await send(app, page, { body: gzipSync(web), path: "/v1/web/i", headers: GZIP });
    const sent = [[plain, zipped, late, new Uint8Array(NO_FRAMING)], [web]];
    expect(await app.batches(mobile)).toEqual([plain, zipped, late]);

    await archiveAll(app);
    const archived = [await archivedOf(app, mobile), await archivedOf(app, page)];
    expect(archived.map(toBytes)).toEqual(sent);
    expect(archived[0]?.batches.map(({ flags }) => flags)).toEqual([
      0,
      0,
      FLAG.late,
      FLAG.quarantined,
    ]);
    expect(batchKindOf(archived[1]?.batches[0]?.flags ?? 0)).toBe("player");
    for (const { batches } of archived)
      for (const { hash, bytes, body } of batches)
        expect([hash, bytes]).toEqual([Bun.hash.xxHash3(body), body.length]);
    expect(archived.map(({ rows }) => rows.map(({ id }) => id))).toEqual([
      [mobile.sessionID],
      [page.sessionID],
    ]);
    expect(await batchRows(app)).toBe(0);
    expect(await segmentStates(app)).toSatisfy((all) => all.every(({ archived: done }) => done));
    expect(await archiveKeys(app)).toEqual(await archiveRows(app));
  });
});

test("archives are of one project and day each, and name the segments that they were made of", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  await send(app, session, { body: aBatch() });
  const { projectID, id } = await aProject(app);
  const other = await app.aSession({ projectID });
  await send(app, other, { body: aBatch() });
  await archiveAll(app);
  const today = new Date().toISOString().slice(0, 10);
  const rows = await app.sql`
    select project_id as project, day::text, kind, records from archives order by kind, project_id`;
  expect(rows.map((row) => ({ ...row }))).toEqual([
    { project: app.project.id, day: today, kind: "projects", records: 1 },
    { project: id, day: today, kind: "projects", records: 2 },
    { project: app.project.id, day: today, kind: "sessions", records: 3 },
    { project: id, day: today, kind: "sessions", records: 3 },
  ]);
  const sources = new Set<string>();
  for (const key of await archiveKeys(app))
    for (const source of (await archiveFooter(app, key)).sources ?? []) sources.add(source);
  const segments = await app.sql<{ id: string }[]>`select id from segments`;
  expect([...sources].toSorted()).toEqual(segments.map((segment) => segment.id).toSorted());
});

test("a session of which nothing is known is in an archive of no project", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  await send(app, session, { body: aBatch() });
  await app.sql`delete from sessions`;
  await archiveAll(app);
  const archived = await archivedOf(app, session);
  expect(toBytes(archived)).toEqual([aBatch()]);
  expect(archived.rows).toEqual([]);
  const [archive] =
    await app.sql`select project_id as project from archives where kind = 'sessions'`;
  expect(archive).toMatchObject({ project: 0 });
});

test("images come along as uses, without the places of their bytes", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  await sendImage(app, session, "a.jpg", "bytes");
  // A use of a known image is recorded in a later segment.
  const other = await app.aSession();
  await sendImage(app, other, "b.jpg", "others");
  await app.sql`delete from image_uses where session_id = ${other.sessionID}`;
  await archiveAll(app);
  const [start, use] = (await archivedOf(app, session)).rows;
  expect(start).toMatchObject({ id: session.sessionID, project_id: app.project.id });
  expect(use).toEqual({
    project_id: app.project.id,
    name: "a.jpg",
    session_id: session.sessionID,
    kind: "image",
    content_type: "image/png",
    bytes: 5,
    crc32: expect.any(Number),
    uses: 1,
    stored_at: expect.any(String),
    network: expect.any(Number),
    sha256: sha256Of("bytes"),
  });
  expect((await archivedOf(app, other)).rows).toHaveLength(1);
  expect(Buffer.from((await imageOf(app, "a.jpg")) ?? "").toString()).toBe("bytes");
});

test("what a step did is counted", async () => {
  await using app = await TestApp.start();
  await sendBatches(app, await app.aSession(), 0, 1);
  const metrics = new WorkMetrics();
  await archiveAll(app, { metrics });
  const segments = (await segmentStates(app)).length;
  const [sums] = await app.sql<[{ read: number; written: number }]>`
    select (select sum(bytes)::integer from segments) as read, (select sum(bytes)::integer from archives) as written`;
  const text = await metrics.registry.metrics();
  for (const line of [
    `archived_segments_total ${segments}`,
    `archive_bytes_total{direction="read"} ${sums.read}`,
    `archive_bytes_total{direction="written"} ${sums.written}`,
    'archives_total{kind="sessions"} 1',
    'archives_total{kind="projects"} 1',
    'archives_total{kind="images"} 0',
    "archive_failures_total 0",
  ])
    expect(text).toContain(`floodgate_${line}\n`);
});

test("the oldest segment that can be read and is not archived has an age", async () => {
  await using app = await TestApp.start();
  const archiver = archiverOf(app);
  await archiveAll(app);
  expect(await archiver.oldestSeconds()).toBe(0);
  await sendBatches(app, await app.aSession(), 0);
  await app.sql`update segments set created_at = now() - interval '100 seconds' where archived_at is null`;
  expect(await archiver.oldestSeconds()).toBeGreaterThanOrEqual(100);
  await app.sql`insert into unreadable_segments (segment_id) select id from segments where archived_at is null`;
  expect(await archiver.oldestSeconds()).toBe(0);
});

test("images of the version before come along with their hash, or with their places until they have one", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  await storedBefore(app, session, { name: "old", content: "bytes", ageMs: 60_000 });
  await storedBefore(app, session, { name: "hashed", content: "others", ageMs: 60_000 });
  await orphansOf(app, NO_GRACE).look();
  const [, { sentAt } = { sentAt: "" }] = await app.sql<{ sentAt: string }[]>`
    select stored_at::text as "sentAt" from images order by name desc`;
  await app.sql`
    insert into image_uses (session_id, project_id, name, sha256, kind, content_type, sent_at)
    values (${session.sessionID}, ${app.project.id}, 'hashed', sha256('others'), 'image', 'image/png', ${sentAt}::text::timestamptz)`;
  await app.sql`update images set sha256 = sha256('others') where name = 'hashed'`;
  await app.sql`update segments set facts_written = true`;
  await archiveAll(app);
  const { rows } = await archivedOf(app, session);
  const [old, hashed] = ["old", "hashed"].map((name) => rows.find((row) => row["name"] === name));
  expect(old).toMatchObject({ chunk_segments: [expect.any(String)], chunk_lengths: [5] });
  expect(old).not.toHaveProperty("sha256");
  expect(hashed).toMatchObject({ sha256: sha256Of("others"), network: null });
  expect(hashed).not.toHaveProperty("chunk_segments");
});

test("a working process archives what servers take in, and deletes the segments after the time of the feed", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  await sendBatches(app, session, 0, 1);
  const times = { ARCHIVE_AFTER_S: "0.3", FEED_HOURS: "0.0001", OBJECT_GRACE_S: "0.3" };
  await using worker = await ServerProcess.start({ ...envOf(app), ...times }, [
    "src/main.ts",
    "work",
  ]);
  await eventually(
    "all segments are gone",
    async () => (await segmentKeys(app.objects)).length === 0,
  );
  await sendBatches(app, session, 2);
  await eventually("it is archived", async () => (await batchRows(app)) === 0);
  expect(toBytes(await archivedOf(app, session))).toEqual([0, 1, 2].map(batch));
  expect(await archiveKeys(app)).toEqual(await archiveRows(app));
  worker.signal("SIGTERM");
  expect(await worker.exited).toBe(0);
});
