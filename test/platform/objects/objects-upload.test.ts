import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { join } from "node:path";

import { ObjectConflict, ObjectMissing } from "../../../src/platform/objects/objects.ts";
import { eventually } from "../../support/eventually.ts";
import { failure } from "../../support/failure.ts";
import { aFileStore, anS3Store, chunksOf, type StoreFixture } from "../../support/stores.ts";

// The first run on a machine may install the S3 server.
setDefaultTimeout(300_000);

const MIB = 2 ** 20;
const PART = 8 * MIB;
const BYTES = randomBytes(25 * MIB);

describe.each<[string, () => Promise<StoreFixture<unknown>>]>([
  ["files", aFileStore],
  ["s3", anS3Store],
])("%s", (_store, aStore) => {
  test.each<[string, number, number]>([
    ["no bytes", 0, 1],
    ["one byte", 1, 1],
    ["a part less a byte", PART - 1, 65_536],
    ["a part", PART, 1_000_003],
    ["a part and a byte", PART + 1, 65_537],
    ["two parts", 2 * PART, PART],
    ["more than three parts in odd chunks", BYTES.length, 777_777],
    ["chunks larger than two parts", BYTES.length, 2 * PART + 5],
  ])("an upload of %s is stored", async (_what, bytes, chunk) => {
    await using fixture = await aStore();
    const { store } = fixture;
    const body = BYTES.subarray(0, bytes);
    await store.upload("builds/one", chunksOf(body, chunk));
    expect(await Array.fromAsync(store.list(""))).toEqual([{ key: "builds/one", bytes }]);
    expect(Buffer.from(await store.read("builds/one", 0, bytes)).equals(body)).toBe(true);
    expect(await fixture.unfinished()).toEqual([]);
  });

  test("a chunk may be used again once the next is asked for", async () => {
    await using fixture = await aStore();
    const shared = new Uint8Array(100_000);
    await fixture.store.upload(
      "reused",
      (async function* () {
        for (let i = 0; i < 100; i++) yield shared.fill(i);
      })(),
    );
    const stored = await fixture.store.read("reused", 0, 10_000_000);
    expect(Array.from({ length: 100 }, (_, i) => stored[i * 100_000])).toEqual(
      Array.from({ length: 100 }, (_, i) => i),
    );
  });

  test.each([0, 3 * MIB, 2 * PART + 1])(
    "a source that fails after %d bytes leaves nothing",
    async (bytes) => {
      await using fixture = await aStore();
      const reason = new Error("the client has gone");
      const source = async function* () {
        yield* chunksOf(BYTES.subarray(0, bytes), 65_536);
        throw reason;
      };
      expect(await failure(fixture.store.upload("builds/one", source()))).toBe(reason);
      expect(await fixture.unfinished()).toEqual([]);
      expect(await Array.fromAsync(fixture.store.list(""))).toEqual([]);
    },
  );

  test("an abort ends an upload whose source is silent, which leaves nothing", async () => {
    await using fixture = await aStore();
    const reason = new Error("shutting down");
    for (const bytes of [0, 2 * PART + 1]) {
      const abort = new AbortController();
      const source = async function* () {
        yield* chunksOf(BYTES.subarray(0, bytes), MIB);
        setTimeout(() => abort.abort(reason), 20);
        await Promise.withResolvers<never>().promise;
      };
      const upload = fixture.store.upload("builds/one", source(), abort.signal);
      expect(await failure(upload)).toBe(reason);
      expect(await fixture.unfinished()).toEqual([]);
    }
    expect(
      await failure(fixture.store.upload("one", chunksOf(BYTES, 1), AbortSignal.abort(reason))),
    ).toBe(reason);
    expect(await Array.fromAsync(fixture.store.list(""))).toEqual([]);
  });

  test("an upload never replaces what is there", async () => {
    await using fixture = await aStore();
    await fixture.store.put("taken", Buffer.from("first"));
    const upload = fixture.store.upload("taken", chunksOf(Buffer.from("other"), 1));
    expect(await failure(upload)).toBeInstanceOf(ObjectConflict);
    expect(Buffer.from(await fixture.store.read("taken", 0, 5)).toString()).toBe("first");
    expect(await fixture.unfinished()).toEqual([]);
  });

  test("what is removed is gone, and a missing one is fine", async () => {
    await using fixture = await aStore();
    const { store } = fixture;
    for (const key of ["a/one", "a/one-2"]) await store.put(key, Buffer.from(key));
    for (const key of ["a/one", "a/one", "a", "none/at/all"]) await failure(store.remove(key));
    expect(await Array.fromAsync(store.list(""))).toEqual([{ key: "a/one-2", bytes: 7 }]);
    expect(await failure(store.remove("a/one"))).toBeUndefined();
    expect(await failure(store.remove("none/at/all"))).toBeUndefined();
    expect(await failure(store.remove("../x"))).toBeInstanceOf(RangeError);
  });

  test("a remove takes away an upload under way, which then fails, and no other", async () => {
    await using fixture = await aStore();
    const { store } = fixture;
    const gates = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const uploads = ["builds/one", "builds/one2"].map((key, i) =>
      store.upload(
        key,
        (async function* () {
          yield BYTES.subarray(0, PART + 1);
          await gates[i]?.promise;
          yield BYTES.subarray(PART + 1, PART + 2);
        })(),
      ),
    );
    await eventually("both are under way", async () => (await fixture.unfinished()).length === 2);
    await store.remove("builds/one");
    expect(await fixture.unfinished()).toHaveLength(1);
    for (const { resolve } of gates) resolve();
    const [one, two] = await Promise.allSettled(uploads);
    expect([one?.status, two?.status]).toEqual(["rejected", "fulfilled"]);
    expect(await Array.fromAsync(store.list(""))).toEqual([
      { key: "builds/one2", bytes: PART + 2 },
    ]);
  });

  test("a body is the range that was asked for", async () => {
    await using fixture = await aStore();
    const { store } = fixture;
    const body = BYTES.subarray(0, 3 * MIB);
    await store.put("one", body);
    for (const [start, end] of [
      [0, 0],
      [0, 1],
      [5, 5],
      [1, MIB + 1],
      [1, MIB + 2],
      [0, 3 * MIB],
      [3 * MIB - 1, 3 * MIB],
    ] as const) {
      const bytes = await new Response(await store.body("one", start, end)).bytes();
      expect(Buffer.from(bytes).equals(body.subarray(start, end))).toBe(true);
    }
    for (const end of [1, 2 * MIB])
      expect(await failure(store.body("none", 0, end))).toBeInstanceOf(ObjectMissing);
    for (const [start, end] of [
      [0, 3 * MIB + 1],
      [3 * MIB, 3 * MIB + 1],
    ] as const)
      expect(await failure(store.body("one", start, end))).toBeInstanceOf(Error);
    expect(await failure(store.body("one", 2, 1))).toBeInstanceOf(RangeError);
  });
});

test.each(["files", "s3"])("%s: neither an upload nor a body gathers in memory", async (kind) => {
  await using fixture = kind === "s3" ? await anS3Store() : await aFileStore();
  const child = Bun.spawn([process.execPath, "-e", STREAMS, kind, JSON.stringify(fixture.open)], {
    stdout: "pipe",
    stderr: "inherit",
  });
  const { grownMiB, curled } = JSON.parse(await child.stdout.text());
  expect(curled).toBe(96 * MIB);
  expect(grownMiB).toBeLessThan(64);
  await fixture.store.remove("large");
});

const platform = (name: string) =>
  JSON.stringify(join(import.meta.dir, "../../../src/platform/objects", name));
const STREAMS = `
  import { FileObjects } from ${platform("file-objects.ts")};
  import { S3Objects } from ${platform("s3-objects.ts")};
  const [, kind, options] = process.argv;
  const open = JSON.parse(options);
  const store = kind === "s3" ? new S3Objects(open) : await FileObjects.open(open);
  async function* source(MiB) { for (let i = 0; i < MiB * 16; i++) yield new Uint8Array(65_536).fill(i); }
  await store.upload("warm", source(17));
  await store.remove("warm");
  Bun.gc(true);
  const began = process.memoryUsage.rss();
  let peak = began;
  setInterval(() => (peak = Math.max(peak, process.memoryUsage.rss())), 5);
  await store.upload("large", source(96));
  const server = Bun.serve({ port: 0, fetch: async () => new Response(await store.body("large", 0, 96 * 2 ** 20)) });
  const curl = Bun.spawn(["curl", "-s", "--limit-rate", "200M", "-o", "/dev/null", "-w", "%{size_download}", server.url.href]);
  const curled = Number(await curl.stdout.text());
  console.log(JSON.stringify({ curled, grownMiB: (peak - began) / 2 ** 20 }));
  process.exit();
`;
