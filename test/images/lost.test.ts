import { rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";

import { segmentKey } from "../../src/log/segment.ts";
import { moveImages } from "../../src/log/unassigned-images.ts";
import { SessionIds } from "../../src/sessions/session-id.ts";
import { Tokens } from "../../src/sessions/token.ts";
import { metric, refusalOf } from "../support/answers.ts";
import { KEYED, TestApp, type TestSession } from "../support/app.ts";
import { type Harm, cut, flipped, gone, harm, keptLog } from "../support/damage.ts";
import { eventually } from "../support/eventually.ts";
import { failure } from "../support/failure.ts";
import { FaultyObjects } from "../support/faulty-objects.ts";
import { aFile, from, hashList, imageList, imageOf, upload } from "../support/images.ts";
import { emptyTables, reindex } from "../support/ingest-tables.ts";
import { Random } from "../support/random.ts";
import { type ServerBeside, serverBeside } from "../support/requests.ts";

const LARGE = new Random(4).bytes(2_500_000);

describe.each(["files", "s3"] as const)("an image in %s whose bytes are lost", (store) => {
  let app: TestApp;
  let server: ServerBeside;
  const kept = keptLog();

  beforeAll(async () => {
    app = await TestApp.start({ store });
    server = await serverBeside(app, { log: kept.log });
  });

  afterAll(async () => {
    await server[Symbol.asyncDispose]();
    await app[Symbol.asyncDispose]();
  });

  const get = (name: string, init: { method?: string; headers?: Record<string, string> } = {}) =>
    fetch(`${server.url}/v1/images/${app.project.id}/${name}`, {
      ...init,
      headers: { ...KEYED, ...init.headers },
    });

  async function stored(name: string, bytes: Uint8Array): Promise<void> {
    const answer = await upload(app, await app.aSession(), [aFile(name, bytes)]);
    expect(answer.status).toBe(200);
  }

  /** Returns the segment and offset of the image's chunk number `nth`, counted from 1. */
  async function chunkOf(name: string, nth: number) {
    const [row] = await app.sql<{ id: string; offset: number }[]>`
      select chunk_segments[${nth}] as id, chunk_offsets[${nth}] as offset from image_contents where name = ${name}`;
    return { key: segmentKey(row?.id ?? ""), offset: row?.offset ?? 0 };
  }

  test.each<[string, Harm, string]>([
    ["gone", gone, "the image is gone from the store"],
    ["cut", cut(60), "the image is damaged in the store"],
    ["flipped", flipped(60), "the image is damaged in the store"],
  ])("%s: 410, logged with the key, counted", async (name, how, text) => {
    const reason = name === "gone" ? "missing" : "damaged";
    const series = `floodgate_missing_records_total{reason="${reason}"}`;
    const before = await metric(server, series);
    await stored(name, LARGE.subarray(0, 900));
    const { key } = await chunkOf(name, 1);
    await harm(app.objects, key, how);
    for (const headers of [{}, { range: "bytes=0-99" }, { range: "bytes=-5" }]) {
      const answer = await get(name, { headers });
      expect(answer.headers.get("cache-control")).toBe("no-store");
      expect(await refusalOf(answer)).toEqual([410, text]);
    }
    expect((await get(name, { method: "HEAD" })).status).toBe(410);
    expect(await metric(server, series)).toBe(before + 4);
    expect(kept.lines.filter((line) => line["key"] === key)).toEqual([
      expect.objectContaining({ level: 50, reason, image: name }),
    ]);
  });

  test("a long one is 410 when its beginning is lost, and breaks off where a later part is", async () => {
    await stored("no beginning", LARGE);
    await harm(app.objects, (await chunkOf("no beginning", 1)).key, gone);
    expect((await get("no beginning")).status).toBe(410);
    await stored("no end", LARGE);
    const { key, offset } = await chunkOf("no end", 19);
    await harm(app.objects, key, flipped(offset + 5));
    const answer = await get("no end");
    expect(answer.status).toBe(200);
    expect(await failure(answer.bytes())).toBeInstanceOf(Error);
    // The undamaged part can still be read.
    const part = await get("no end", { headers: { range: "bytes=0-999999" } });
    expect(part.status).toBe(206);
    expect(Buffer.compare(await part.bytes(), LARGE.subarray(0, 1_000_000))).toBe(0);
  });
});

describe.each<[string, Uint8Array]>([
  ["small", LARGE.subarray(0, 900)],
  ["large", LARGE],
])("a %s image that is sent again after its bytes were lost", (name, bytes) => {
  /** Stores the image, loses its last chunk, and returns the chunk's key once it is marked. */
  async function lose(app: TestApp, session: TestSession, how: Harm): Promise<string> {
    expect((await upload(app, session, [aFile(name, bytes)])).status).toBe(200);
    const [row] = await app.sql<{ id: string }[]>`
      select chunk_segments[cardinality(chunk_segments)] as id from image_contents where name = ${name}`;
    const key = segmentKey(row?.id ?? "");
    await harm(app.objects, key, how);
    expect(await failure(imageOf(app, name))).toBeInstanceOf(Error);
    await eventually("marked", async () => {
      const marks =
        await app.sql`select from unreadable_segments where segment_id = ${row?.id ?? ""}`;
      return marks.length === 1;
    });
    return key;
  }

  async function isRead(app: TestApp, { sessionID }: TestSession): Promise<boolean> {
    const read = await imageOf(app, name, app.project.id, `?session=${sessionID}`);
    return read !== undefined && Buffer.compare(read, bytes) === 0;
  }

  test.each<[string, Harm]>([
    ["gone", gone],
    ["flipped", flipped(60)],
  ])("%s: is readable by all who sent it, and listed once", async (_, how) => {
    await using app = await TestApp.start();
    const [first, second] = [await app.aSession(), await app.aSession()];
    await lose(app, first, how);
    for (const session of [second, second, first])
      expect((await upload(app, session, [aFile(name, bytes)])).status).toBe(200);
    for (const session of [first, second]) {
      expect(await isRead(app, session)).toBe(true);
      expect(await imageList(app, session)).toHaveLength(1);
    }
    await emptyTables(app.sql);
    await reindex(app);
    expect(await isRead(app, second)).toBe(true);
  });

  test("a session without a project that sends it makes it readable for the project", async () => {
    await using app = await TestApp.start();
    const first = await app.aSession();
    await lose(app, first, gone);
    const sessionId = new SessionIds(() => 65_000).next();
    const token = new Tokens(["test-secret"]).sign({
      sessionId,
      delay: 0,
      expiresAt: Date.now() + 60_000,
    });
    expect((await upload(app, { token }, [aFile(name, bytes)])).status).toBe(200);
    await app.sql`update sessions set project_id = ${app.project.id} where id = ${sessionId}`;
    await app.sql.begin(async (sql) => await moveImages(sql, [sessionId]));
    expect(await isRead(app, first)).toBe(true);
  });

  test("the hash list names it before and after, and not while it is lost", async () => {
    await using app = await TestApp.start({ env: { TRUSTED_PROXIES: "127.0.0.0/8" } });
    const [first, second] = [await app.aSession(), await app.aSession()];
    const file = [aFile(name, bytes)];
    await upload(app, second, file, { headers: from(2) });
    await upload(app, first, file, { headers: from(1) });
    await eventually("listed", async () => JSON.stringify(await hashList(app)) !== "[]");
    await lose(app, first, gone);
    await eventually("not listed", async () => JSON.stringify(await hashList(app)) === "[]");
    expect((await upload(app, second, file)).status).toBe(200);
    await eventually("listed", async () => JSON.stringify(await hashList(app)) !== "[]");
    expect(await isRead(app, second)).toBe(true);
  });
});

test("an image is 503 while the store is away", async () => {
  const objects = new FaultyObjects();
  await using app = await TestApp.start({ wrapObjects: objects.wrap });
  const parts = [aFile("small", "pixels"), aFile("large", LARGE)];
  expect((await upload(app, await app.aSession(), parts)).status).toBe(200);
  objects.beforeRead = () => {
    throw new Error("the store is away");
  };
  for (const name of ["small", "large"]) {
    const answer = await app.fetch(`/v1/images/${app.project.id}/${name}`);
    expect(answer.headers.get("retry-after")).toMatch(/^[1-9]\d*$/);
    expect(await refusalOf(answer)).toEqual([503, "the object store is away, try again"]);
  }
  // The disk with all objects is unmounted: that says nothing about a single object.
  objects.beforeRead = () => undefined;
  await rm(join(app.config.dataDir, "objects"), { recursive: true });
  expect((await app.fetch(`/v1/images/${app.project.id}/small`)).status).toBe(503);
});
