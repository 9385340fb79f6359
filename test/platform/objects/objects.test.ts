import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { FileObjects } from "../../../src/platform/objects/file-objects.ts";
import {
  ObjectConflict,
  ObjectMissing,
  type ObjectStore,
} from "../../../src/platform/objects/objects.ts";
import { S3Objects } from "../../../src/platform/objects/s3-objects.ts";
import { failure } from "../../support/failure.ts";
import { s3Server } from "../../support/s3-server.ts";

// The first run on a machine may install the S3 server.
setDefaultTimeout(300_000);

/** An empty store, and the same one after the ground has gone from under it. */
type Fixture = AsyncDisposable & { store: ObjectStore; lose: () => Promise<ObjectStore> };

describe.each<[string, () => Promise<Fixture>]>([
  ["files", aFileStore],
  ["s3", anS3Store],
])("%s", (_store, aStore) => {
  test("what was put is read back, whole and in parts", async () => {
    await using fixture = await aStore();
    const { store } = fixture;
    const body = randomBytes(10_000);
    await store.put("segments/2026/01/02/03/one", body);
    expect(await bytesOf(store, "segments/2026/01/02/03/one", 0, 10_000)).toEqual(body);
    expect(await bytesOf(store, "segments/2026/01/02/03/one", 1, 2)).toEqual(body.subarray(1, 2));
    expect(await bytesOf(store, "segments/2026/01/02/03/one", 9_000, 10_000)).toEqual(
      body.subarray(9_000),
    );
    expect(await bytesOf(store, "segments/2026/01/02/03/one", 5, 5)).toEqual(Buffer.alloc(0));
  });

  test("an object of 8 MiB and one of no bytes are stored", async () => {
    await using fixture = await aStore();
    const body = randomBytes(8 * 2 ** 20);
    await fixture.store.put("large", body);
    await fixture.store.put("empty", new Uint8Array(0));
    expect((await bytesOf(fixture.store, "large", 0, body.length)).equals(body)).toBe(true);
    expect(await all(fixture.store, "")).toEqual([
      { key: "empty", bytes: 0 },
      { key: "large", bytes: body.length },
    ]);
  });

  test("only the bytes of a view are stored, not the buffer around it", async () => {
    await using fixture = await aStore();
    const around = randomBytes(3_000_000);
    const body = around.subarray(1_000_000, 2_500_000);
    await fixture.store.put("view", body);
    expect((await bytesOf(fixture.store, "view", 0, body.length)).equals(body)).toBe(true);
  });

  test("the same bytes again under the same key succeed", async () => {
    await using fixture = await aStore();
    for (const body of [randomBytes(100), Buffer.alloc(0)])
      for (let time = 0; time < 3; time++)
        await fixture.store.put(`again-${body.length}`, Buffer.from(body));
    expect(await all(fixture.store, "")).toHaveLength(2);
  });

  test("other bytes under a taken key are a conflict and change nothing", async () => {
    await using fixture = await aStore();
    const body = randomBytes(100);
    await fixture.store.put("taken", body);
    const others = [randomBytes(100), randomBytes(101), body.subarray(0, 99), Buffer.alloc(0)];
    for (const other of others)
      expect(await failure(fixture.store.put("taken", other))).toBeInstanceOf(ObjectConflict);
    expect(await all(fixture.store, "")).toEqual([{ key: "taken", bytes: 100 }]);
    expect(await bytesOf(fixture.store, "taken", 0, 100)).toEqual(body);
  });

  test("of writers of different bytes under one key exactly one wins", async () => {
    await using fixture = await aStore();
    for (let round = 0; round < 5; round++) {
      const bodies = Array.from({ length: 8 }, () => randomBytes(20_000));
      const outcomes = await Promise.allSettled(
        bodies.map((body) => fixture.store.put(`race-${round}`, body)),
      );
      const won = bodies.filter((_body, i) => outcomes[i]?.status === "fulfilled");
      expect(won).toHaveLength(1);
      expect([await bytesOf(fixture.store, `race-${round}`, 0, 20_000)]).toEqual(won);
    }
  });

  test("what is missing is ObjectMissing", async () => {
    await using fixture = await aStore();
    await fixture.store.put("a/b", randomBytes(10));
    for (const key of ["c", "a/c", "c/d/e"])
      expect(await failure(fixture.store.read(key, 0, 1))).toBeInstanceOf(ObjectMissing);
  });

  test("a range that goes past the end, or lies behind it, rejects", async () => {
    await using fixture = await aStore();
    await fixture.store.put("short", randomBytes(10));
    for (const [start, end] of [
      [0, 11],
      [9, 12],
      [10, 11],
      [50, 60],
    ] as const) {
      const error = await failure(fixture.store.read("short", start, end));
      expect(error).toBeInstanceOf(Error);
      expect(error).not.toBeInstanceOf(ObjectMissing);
    }
  });

  test("keys and ranges that are none are refused", async () => {
    await using fixture = await aStore();
    const keys = ["", "/a", "a/", "a//b", "..", "a/../b", "./a", "a/.b", "a b", "a\\b", "ä", "a\n"];
    for (const key of [...keys, "a\0b", "k".repeat(600)]) {
      expect(await failure(fixture.store.put(key, randomBytes(1)))).toBeInstanceOf(RangeError);
      expect(await failure(fixture.store.read(key, 0, 1))).toBeInstanceOf(RangeError);
    }
    for (const [start, end] of [
      [-1, 1],
      [2, 1],
      [0, 1.5],
      [Number.NaN, 1],
    ] as const)
      expect(await failure(fixture.store.read("a", start, end))).toBeInstanceOf(RangeError);
    expect(await all(fixture.store, "")).toEqual([]);
  });

  test("a list is in key order and takes any beginning of a key", async () => {
    await using fixture = await aStore();
    const keys = ["a-b/x", "a.b/c", "a/b", "a/b-c", "a0", "aB/d", "b/a/a/a", "b/a/b", "z"];
    for (const key of keys.toReversed()) await fixture.store.put(key, Buffer.from(key));
    const list = async (prefix: string) => (await all(fixture.store, prefix)).map(({ key }) => key);
    expect(await list("")).toEqual(keys);
    for (const prefix of ["a", "a/", "a/b", "a.", "b/a", "b/a/", "b/a/b", "z", "zz", "c/d"])
      expect(await list(prefix)).toEqual(keys.filter((key) => key.startsWith(prefix)));
  });

  test("a list that begins after a key has what is beyond it", async () => {
    await using fixture = await aStore();
    const keys = ["a-b/x", "a/b", "a/b-c", "a/bc/c", "a/c/d", "a0", "b/a/a/a", "b/a/b", "z"];
    for (const key of keys) await fixture.store.put(key, Buffer.from(key));
    for (const prefix of ["", "a/", "b/a", "c"])
      for (const after of [
        "",
        "a",
        "a/",
        "a/b",
        "a/b/",
        "a/bc",
        "a/bc/zz",
        "a0",
        "b/a/a/a",
        "zz",
      ]) {
        const listed = await Array.fromAsync(fixture.store.list(prefix, after));
        expect(listed.map(({ key }) => key)).toEqual(
          keys.filter((key) => key.startsWith(prefix) && key > after),
        );
      }
  });

  test("a list of more than a page is complete", async () => {
    await using fixture = await aStore();
    const keys = Array.from({ length: 1_100 }, (_key, i) => `page/${String(i).padStart(5, "0")}`);
    for (let at = 0; at < keys.length; at += 50)
      await Promise.all(
        keys.slice(at, at + 50).map((key) => fixture.store.put(key, Buffer.from(key))),
      );
    expect(await all(fixture.store, "page/")).toEqual(keys.map((key) => ({ key, bytes: 10 })));
  });

  test("an aborted PUT or read rejects with the reason, and a PUT stores nothing", async () => {
    await using fixture = await aStore();
    await fixture.store.put("there", randomBytes(10));
    const reason = new Error("the client has gone");
    const aborted = AbortSignal.abort(reason);
    expect(await failure(fixture.store.put("one", randomBytes(10), aborted))).toBe(reason);
    expect(await failure(fixture.store.read("there", 0, 10, aborted))).toBe(reason);
    expect(await failure(fixture.store.ping(aborted))).toBe(reason);
    const later = new AbortController();
    const put = failure(fixture.store.put("two", randomBytes(8 * 2 ** 20), later.signal));
    later.abort(reason);
    expect(await put).toBe(reason);
    expect(await all(fixture.store, "")).toEqual([{ key: "there", bytes: 10 }]);
  });

  test("ping tells a store that takes writes from one that cannot", async () => {
    await using fixture = await aStore();
    await fixture.store.ping();
    expect(await all(fixture.store, "")).toEqual([]);
    const lost = await fixture.lose();
    expect(await failure(lost.ping())).toBeInstanceOf(Error);
    expect(await failure(lost.probe())).toBeInstanceOf(Error);
    expect(await failure(lost.put("key", randomBytes(10)))).toBeInstanceOf(Error);
    expect(await failure(all(lost, ""))).toBeInstanceOf(Error);
  });

  test("a probe writes as often as it is called, and nothing among what is stored", async () => {
    await using fixture = await aStore();
    await fixture.store.probe();
    await fixture.store.probe();
    await fixture.store.ping();
    for (const prefix of ["segments/", "builds/"])
      expect(await all(fixture.store, prefix)).toEqual([]);
  });
});

test("bytes that change on their way are refused by the store", async () => {
  const server = await s3Server();
  const bucket = `test-${Bun.randomUUIDv7()}`;
  await server.createBucket(bucket);
  using proxy = Bun.serve({
    port: 0,
    async fetch({ url, method, headers, body }) {
      const bytes = await new Response(body).bytes();
      if (method === "PUT") bytes[1_000] = ~bytes[1_000]!;
      const { pathname, search } = new URL(url);
      return fetch(server.endpoint + pathname + search, { method, headers, body: bytes });
    },
  });
  const store = new S3Objects({ ...server, bucket, endpoint: proxy.url.origin });
  expect(String(await failure(store.put("key", randomBytes(10_000))))).toMatch(
    /BadDigest|XAmzContentSHA256Mismatch/,
  );
  expect(await all(new S3Objects({ ...server, bucket }), "")).toEqual([]);
});

async function aFileStore(): Promise<Fixture> {
  const folder = await mkdtemp(join(tmpdir(), "floodgate-objects-"));
  const store = await FileObjects.open(join(folder, "made", "here"));
  const remove = () => rm(folder, { recursive: true, force: true });
  return {
    store,
    lose: () => remove().then(() => store),
    [Symbol.asyncDispose]: remove,
  };
}

async function anS3Store(): Promise<Fixture> {
  const server = await s3Server();
  const bucket = `test-${Bun.randomUUIDv7()}`;
  await server.createBucket(bucket);
  // What lies beside the prefix is no part of the store.
  await using beside = new S3Objects({ ...server, bucket });
  await beside.put("floodgate-2/other", randomBytes(1));
  const store = new S3Objects({ ...server, bucket, prefix: "floodgate/" });
  return {
    store,
    lose: async () => new S3Objects({ ...server, bucket: `${bucket}-gone` }),
    [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
  };
}

async function bytesOf(store: ObjectStore, key: string, start: number, end: number) {
  return Buffer.from(await store.read(key, start, end));
}

const all = (store: ObjectStore, prefix: string) => Array.fromAsync(store.list(prefix));
