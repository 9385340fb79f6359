import { pino } from "pino";
import { describe, expect, test } from "bun:test";

import { Unhashed } from "../../src/images/unhashed.ts";
import { SegmentReader } from "../../src/log/segment-reader.ts";
import { objectOf } from "../support/answers.ts";
import { TestApp, type TestSession } from "../support/app.ts";
import { eventually } from "../support/eventually.ts";
import { aFile, imageList, imageOf, sha256Of, textOf, upload } from "../support/images.ts";
import { storedBefore } from "../support/images-before.ts";
import { indexState } from "../support/index-state.ts";
import { ingestTables } from "../support/ingest-tables.ts";
import { ServerProcess, envOf } from "../support/server-process.ts";
import { MAIN } from "../support/program.ts";

const LOG = pino({ level: "silent" });
const LARGE = "x".repeat(200_000);

/** Makes a session whose images were stored by the previous version. */
async function aSessionBefore(app: TestApp, images: Record<string, string>): Promise<TestSession> {
  const session = await app.aSession();
  for (const [name, content] of Object.entries(images))
    await storedBefore(app, session, { name, content, ageMs: 60_000 });
  return session;
}

/** Runs the hashing until nothing is left to hash, or for the given time. */
async function hashAll(
  { sql, objects }: TestApp,
  processes = 1,
  isDone = async () =>
    (await sql`select 1 from images where sha256 is null and name <> 'lost'`).length === 0,
): Promise<void> {
  const stopping = new AbortController();
  const running = Array.from({ length: processes }, () =>
    new Unhashed({ sql, reader: new SegmentReader(objects), log: LOG }).run(stopping.signal),
  );
  await eventually("everything is hashed", isDone);
  stopping.abort();
  await Promise.all(running);
}

describe("an image of the version before", () => {
  test("is read and listed, without a hash", async () => {
    await using app = await TestApp.start();
    const session = await aSessionBefore(app, { old: "bytes", older: LARGE });
    expect(await imageList(app, session)).toMatchObject([
      { name: "old", bytes: 5, sha256: null },
      { name: "older", bytes: LARGE.length, sha256: null },
    ]);
    expect(Buffer.from((await imageOf(app, "old")) ?? "").toString()).toBe("bytes");
    expect(await textOf(app, session, "older")).toBe(LARGE);
    const answer = await app.fetch(`/v1/images/${app.project.id}/old`);
    expect(answer.headers.get("etag")).toMatch(/^"5-[\da-f]{8}"$/);
    const other = await app.aSession();
    expect(await textOf(app, other, "old")).toBeUndefined();
    expect(await objectOf(app.fetch(`/v1/sessions/${session.sessionID}`))).toMatchObject({
      images: 2,
    });
  });

  test("costs no PUT when it comes again, and is both sessions' then; other bytes are stored beside it", async () => {
    await using app = await TestApp.start();
    const before = await aSessionBefore(app, { old: "plumless" });
    const session = await app.aSession();
    const { segments } = await indexState(app.sql, app.objects);
    const answers = await Promise.all(
      Array.from({ length: 4 }, () => upload(app, session, [aFile("old", "plumless")])),
    );
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200]);
    expect((await indexState(app.sql, app.objects)).segments).toBe(segments);
    for (const one of [before, session])
      expect(await imageList(app, one)).toMatchObject([
        { name: "old", sha256: sha256Of("plumless") },
      ]);
    // Same length and CRC-32 as "plumless".
    expect((await upload(app, session, [aFile("old", "buckeroo")])).status).toBe(200);
    expect(await textOf(app, session, "old")).toBe("buckeroo");
    expect(await textOf(app, before, "old")).toBe("plumless");
    expect(Buffer.from((await imageOf(app, "old")) ?? "").toString()).toBe("plumless");
  });

  test("is one image of its session when that sends it again, also while it is not hashed", async () => {
    await using app = await TestApp.start();
    const session = await aSessionBefore(app, { old: LARGE });
    expect((await upload(app, session, [aFile("old", LARGE)])).status).toBe(200);
    const listed = [{ name: "old", sha256: sha256Of(LARGE) }];
    expect(await imageList(app, session)).toMatchObject(listed);
    await hashAll(app);
    expect(await imageList(app, session)).toMatchObject(listed);
    const { contents, uses } = await ingestTables(app.sql);
    expect([contents.length, uses.length]).toEqual([1, 1]);
  });

  test("is stored again when its bytes cannot be read", async () => {
    await using app = await TestApp.start();
    const session = await app.aSession();
    const { key } = await storedBefore(app, session, { name: "lost", content: "bytes" });
    await app.objects.remove(key);
    expect((await upload(app, session, [aFile("lost", "bytes")])).status).toBe(200);
    expect(await textOf(app, session, "lost")).toBe("bytes");
  });
});

describe("hashing", () => {
  test("makes contents and uses of all that can be read, by several processes at once; a lost object stops none", async () => {
    await using app = await TestApp.start();
    const images = Object.fromEntries(
      Array.from({ length: 45 }, (_, n) => [`ä ${n}`, `bytes ${n}`]),
    );
    const session = await aSessionBefore(app, { ...images, large: LARGE });
    const { key } = await storedBefore(app, session, { name: "lost", content: "lost" });
    await app.objects.remove(key);
    await hashAll(app, 3);
    const listed = await imageList(app, session);
    const expected = { ...images, large: LARGE, lost: undefined };
    expect(new Map(listed.map(({ name, sha256 }) => [name, sha256]))).toEqual(
      new Map(
        Object.entries(expected).map(([name, text]) => [
          name,
          text === undefined ? null : sha256Of(text),
        ]),
      ),
    );
    for (const [name, text] of Object.entries({ ...images, large: LARGE })) {
      expect(await textOf(app, session, name)).toBe(text);
      const query = `?sha256=${sha256Of(text)}`;
      expect(await imageOf(app, name, app.project.id, query)).toBeDefined();
    }
    const { contents, uses } = await ingestTables(app.sql);
    expect([contents.length, uses.length]).toEqual([46, 46]);
    expect(contents.map(({ row }) => row.uses)).toEqual(contents.map(() => 1));
  });

  test("leaves the rows to processes of the version before, for a day", async () => {
    await using app = await TestApp.start();
    const session = await aSessionBefore(app, { old: "bytes" });
    await hashAll(app);
    const rows = async () => (await ingestTables(app.sql)).images.length;
    expect(await rows()).toBe(1);
    await app.sql`update images set looked_at = now() - interval '25 hours'`;
    await app.sql`
      insert into images select project_id, 'damaged', session_id, kind, content_type, bytes, crc32, uses, stored_at,
        chunk_segments, array[1], chunk_lengths from images`;
    await hashAll(app, 1, async () => (await rows()) === 1);
    expect(await imageList(app, session)).toMatchObject([{ name: "damaged" }, { name: "old" }]);
  });

  test("goes on with what they write meanwhile, in a working process", async () => {
    await using app = await TestApp.start();
    const session = await aSessionBefore(app, { first: "1" });
    await using worker = await ServerProcess.start(envOf(app), [MAIN, "work"]);
    await eventually("it is hashed", async () =>
      (await imageList(app, session)).every(({ sha256 }) => sha256 === sha256Of("1")),
    );
    worker.signal("SIGTERM");
    expect(await worker.exited).toBe(0);
  });
});
