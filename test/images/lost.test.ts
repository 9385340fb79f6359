import { rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";

import { segmentKey } from "../../src/log/segment.ts";
import { refusalOf } from "../support/answers.ts";
import { KEYED, TestApp } from "../support/app.ts";
import { type Harm, cut, flipped, gone, harm, keptLog } from "../support/damage.ts";
import { failure } from "../support/failure.ts";
import { FaultyObjects } from "../support/faulty-objects.ts";
import { aFile, upload } from "../support/images.ts";
import { Random } from "../support/random.ts";
import { type ServerBeside, metricOf, serverBeside } from "../support/requests.ts";

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
    const before = await metricOf(server, series);
    await stored(name, LARGE.subarray(0, 900));
    const { key } = await chunkOf(name, 1);
    await harm(app.objects, key, how);
    for (const headers of [{}, { range: "bytes=0-99" }, { range: "bytes=-5" }]) {
      const answer = await get(name, { headers });
      expect(answer.headers.get("cache-control")).toBe("no-store");
      expect(await refusalOf(answer)).toEqual([410, text]);
    }
    expect((await get(name, { method: "HEAD" })).status).toBe(410);
    expect(await metricOf(server, series)).toBe(before + 4);
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
