import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { randomBytes } from "node:crypto";

import {
  ObjectDamaged,
  ObjectMissing,
  type ObjectStore,
  ReadBroken,
} from "../../../src/platform/objects/objects.ts";
import {
  type RetryingOptions,
  RetryingObjects,
} from "../../../src/platform/objects/retrying-objects.ts";
import { S3Objects } from "../../../src/platform/objects/s3-objects.ts";
import { undelayedMs } from "../../support/eventually.ts";
import { failure } from "../../support/failure.ts";
import { FaultyObjects } from "../../support/faulty-objects.ts";
import { S3Proxy, type S3Script, passes, refuses } from "../../support/s3-proxy.ts";
import { aFileStore, anS3Store } from "../../support/stores.ts";

// The first run on a machine may install the S3 server.
setDefaultTimeout(300_000);

const BYTES = randomBytes(3 * 2 ** 20);
const KEY = "builds/one";
const AWAY = new Error("the store is away");

const halves: S3Script = async ({ forward, answer }) => {
  const whole = await forward();
  const head = whole.indexOf("\r\n\r\n") + 4;
  answer(whole.subarray(0, head + Math.ceil((whole.length - head) / 2)));
};
const resets: S3Script = async ({ reset }) => reset();
const hangs: S3Script = async ({ body }) => {
  await body();
};

describe("over S3", () => {
  test.each<[string, S3Script[]]>([
    ["500 and 503", [refuses(500, "InternalError"), refuses(503, "SlowDown")]],
    ["a reset", [resets]],
    ["no answer", [hangs]],
    ["answers of half the body", [halves, halves, halves]],
    ["one after the other", [halves, refuses(500, "InternalError"), halves, resets]],
  ])("a range is read whole through %s", async (_faults, scripts) => {
    await using t = await behindProxy();
    for (const [start, end] of [
      [0, 1000],
      [5, BYTES.length - 5],
    ] as const) {
      t.proxy.next.push(...scripts);
      expect(BYTES.subarray(start, end).equals(await t.store.read(KEY, start, end))).toBe(true);
      t.proxy.next.push(...scripts);
      const body = await new Response(await t.store.body(KEY, start, end)).bytes();
      expect(BYTES.subarray(start, end).equals(body)).toBe(true);
      expect(t.proxy.next).toEqual([]);
    }
  });

  test("a body that stalls goes on", async () => {
    await using t = await behindProxy({ stallMs: 200 });
    using server = Bun.serve({
      port: 0,
      development: false,
      fetch: async () => new Response(await t.store.body(KEY, 0, BYTES.length)),
    });
    t.proxy.next.push(async ({ forward, answerInPart }) =>
      answerInPart((await forward()).subarray(0, 1_000_000)),
    );
    expect(BYTES.equals(await (await fetch(server.url)).bytes())).toBe(true);
  });

  test("a store that stays away fails a read within its bound, and breaks a body off", async () => {
    await using t = await behindProxy({ giveUpMs: 300, stallMs: 300 });
    t.proxy.next.push(halves);
    t.proxy.otherwise = refuses(503, "SlowDown");
    using server = Bun.serve({
      port: 0,
      development: false,
      fetch: async () => new Response(await t.store.body(KEY, 0, BYTES.length)),
    });
    expect(await failure(fetch(server.url).then((answer) => answer.bytes()))).toBeInstanceOf(Error);
    const beganMs = undelayedMs();
    expect(String(await failure(t.store.read(KEY, 0, 10)))).toContain("503 SlowDown");
    expect(await failure(t.store.body(KEY, 0, BYTES.length))).toBeInstanceOf(Error);
    expect(undelayedMs() - beganMs).toBeLessThan(5000);
    t.proxy.otherwise = passes;
    expect(await t.store.read(KEY, 0, 10)).toEqual(BYTES.subarray(0, 10));
  });
});

describe.each([
  ["files", aFileStore],
  ["s3", anS3Store],
] as const)("over %s", (_name, aStore) => {
  test("what is missing or damaged is told at once, with what there is of it", async () => {
    await using fixture = await aStore();
    await fixture.store.put(KEY, BYTES);
    let attempts = 0;
    const faulty = new FaultyObjects();
    faulty.beforeRead = () => void attempts++;
    const store = new RetryingObjects(faulty.wrap(fixture.store));
    for (const read of [
      async () => store.read("builds/two", 0, 1),
      async () => store.body("builds/two", 0, BYTES.length),
    ])
      expect(await failure(read())).toBeInstanceOf(ObjectMissing);
    const { length } = BYTES;
    for (const [start, end] of [
      [length - 10, length + 1],
      [length, length + 1],
      [length + 5, length + 9],
    ] as const) {
      const error = await failure(store.read(KEY, start, end));
      if (!(error instanceof ObjectDamaged)) throw error;
      expect(Buffer.from(error.bytes)).toEqual(BYTES.subarray(start, end));
      expect(await failure(store.body(KEY, start, end))).toBeInstanceOf(ObjectDamaged);
    }
    expect(await failure(store.body(KEY, 0, length + 1))).toBeInstanceOf(ObjectDamaged);
    expect(attempts).toBe(9);
  });

  test("a list goes on after what it had given", async () => {
    await using fixture = await aStore();
    const keys = Array.from({ length: 30 }, (_, nth) => `list/${String(nth).padStart(3, "0")}`);
    for (const key of keys) await fixture.store.put(key, BYTES.subarray(0, 1));
    let lists = 0;
    const store = new RetryingObjects(
      replaced(fixture.store, {
        async *list(prefix: string, after?: string) {
          let left = ++lists % 3 === 0 ? 7 : 4;
          for await (const object of fixture.store.list(prefix, after)) {
            if (left-- === 0) throw AWAY;
            yield object;
          }
        },
      }),
    );
    const listed = await Array.fromAsync(store.list("list/", "list/002"));
    expect(listed.map(({ key }) => key)).toEqual(keys.slice(3));
    expect(lists).toBeGreaterThan(5);
  });
});

test("a read goes on where it stopped, and is damaged where the rest turns out to be", async () => {
  await using fixture = await aFileStore();
  await fixture.store.put(KEY, BYTES);
  const asked: [number, number][] = [];
  const cutting = replaced(fixture.store, {
    read: async (key: string, start: number, end: number) => {
      asked.push([start, end]);
      if (asked.length > 3) return await fixture.store.read(key, start, end);
      if (asked.length === 2) throw AWAY;
      throw new ReadBroken("cut", await fixture.store.read(key, start, start + 100));
    },
  });
  const store = new RetryingObjects(cutting);
  const read = await store.read(KEY, 10, 5000);
  expect(BYTES.subarray(10, 5000).equals(read)).toBe(true);
  expect(asked).toEqual([
    [10, 5000],
    [110, 5000],
    [110, 5000],
    [210, 5000],
  ]);
  asked.length = 0;
  const { length } = BYTES;
  const error = await failure(store.read(KEY, length - 300, length + 9));
  if (!(error instanceof ObjectDamaged)) throw error;
  expect(Buffer.from(error.bytes)).toEqual(BYTES.subarray(length - 300));
});

test("an aborted read is not tried again", async () => {
  await using fixture = await aFileStore();
  const abort = new AbortController();
  const reason = new Error("nobody waits any more");
  let attempts = 0;
  const store = new RetryingObjects(
    replaced(fixture.store, {
      read: async () => {
        if (++attempts === 3) abort.abort(reason);
        throw AWAY;
      },
    }),
  );
  expect(await failure(store.read(KEY, 0, 1, abort.signal))).toBe(reason);
  expect(attempts).toBe(3);
});

/** Returns the store with some of its methods replaced. */
function replaced(store: ObjectStore, methods: Partial<ObjectStore>): ObjectStore {
  return Object.assign(new FaultyObjects().wrap(store), methods);
}

async function behindProxy(options: Partial<RetryingOptions> = {}) {
  const direct = await anS3Store();
  await direct.store.put(KEY, BYTES);
  const proxy = await S3Proxy.open(direct.open.endpoint);
  proxy.selects = ({ method }) => method === "GET";
  const s3 = new S3Objects({ ...direct.open, endpoint: proxy.endpoint, readTimeoutMs: 250 });
  const store = new RetryingObjects(s3, options);
  return {
    proxy,
    store,
    [Symbol.asyncDispose]: async () => {
      await store[Symbol.asyncDispose]();
      await proxy[Symbol.asyncDispose]();
      await direct[Symbol.asyncDispose]();
    },
  };
}
