import { expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { Random } from "../support/random.ts";
import { type Update, UpdateApi, hashesOf } from "../support/updates.ts";

const CACHE_BYTES = 12_000_000;
const random = new Random(23);

let reads = 0;
let failing = 0;
const app = TestApp.forTests({
  store: "s3",
  env: { DOWNLOAD_CACHE_BYTES: String(CACHE_BYTES) },
  wrapObjects: (objects) => {
    const read = objects.read.bind(objects);
    return Object.assign(objects, {
      read: async (...args: Parameters<typeof read>) => {
        reads++;
        if (failing-- > 0) throw new Error("the store is away");
        return await read(...args);
      },
    });
  },
});
const api = UpdateApi.forTests(app);

let version = 4000;

async function published(bytes: number, fields = {}): Promise<{ update: Update; sha256: string }> {
  const name = `app-${++version}.apk`;
  const data = random.bytes(bytes);
  const update = await api.published({ version: `${version}_01`, name, bytes: data, fields });
  return { update, sha256: hashesOf(data).SHA256 };
}

/** The length that is told, once the bytes were found to be right. */
async function lengthOf({ update, sha256 }: Awaited<ReturnType<typeof published>>) {
  const answer = await api.download(update);
  expect(answer.status).toBe(200);
  expect(hashesOf(await answer.bytes()).SHA256).toBe(sha256);
  return answer.headers.get("content-length");
}

test("a build that is offered is read from the store once, however many ask for it", async () => {
  const build = await published(9_000_000);
  reads = 0;
  const lengths = await Promise.all(Array.from({ length: 10 }, async () => await lengthOf(build)));
  expect(lengths).toEqual(lengths.map(() => "9000000"));
  // In parts of 8 MiB.
  expect(reads).toBe(2);
});

test("a build that is not offered any more is streamed, and makes room for its successor", async () => {
  const old = await published(9_000_000);
  expect(await lengthOf(old)).toBe("9000000");
  const next = await published(9_000_001);
  expect(await lengthOf(next)).toBe("9000001");
  // Streams have no length: https://github.com/oven-sh/bun/issues/10507
  expect(await lengthOf(old)).toBeNull();
});

test("an older version that is published later takes no room of the one that is offered", async () => {
  const newest = await published(9_000_000);
  const name = "older.apk";
  const bytes = random.bytes(9_000_000);
  const update = await api.published({ version: `${version - 1}_01`, name, bytes });
  expect(await lengthOf({ update, sha256: hashesOf(bytes).SHA256 })).toBeNull();
  expect(await lengthOf(newest)).toBe("9000000");
});

test("a build for which there is no room beside the others that are offered is streamed", async () => {
  const first = await published(7_000_000);
  expect(await lengthOf(first)).toBe("7000000");
  const other = await published(7_000_000, { channel: "beta" });
  expect(await lengthOf(other)).toBeNull();
  expect(await lengthOf(first)).toBe("7000000");
});

test("a build that a part of the devices gets is offered beside the one before", async () => {
  const first = await published(5_000_000);
  const staged = await published(5_000_000, { rollout: "20" });
  expect(await lengthOf(staged)).toBe("5000000");
  expect(await lengthOf(first)).toBe("5000000");
});

test("a store that fails is asked again the next time", async () => {
  const build = await published(9_000_000);
  failing = 1;
  expect((await api.download(build.update)).status).toBe(503);
  expect(await lengthOf(build)).toBe("9000000");
});
