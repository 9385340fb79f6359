import { gzipSync } from "node:zlib";
import { beforeAll, describe, expect, test } from "bun:test";
import { pack as tar } from "tar-stream";

import { objectOf, refusalOf } from "../support/answers.ts";
import { TestApp, type TestSession } from "../support/app.ts";
import { concat } from "../support/batches.ts";
import { type FormPart } from "../support/forms.ts";
import { aFile, from, hashList, imageOf, imagesOf, upload } from "../support/images.ts";
import { Random } from "../support/random.ts";

const MIB = 2 ** 20;
const MOBILE = { path: "/v1/mobile/images" };
const FILE_BYTES_MAX = 400_000;
// What an archive may hold when it is unpacked.
const UNPACKED_BYTES_MAX = 4 * FILE_BYTES_MAX;
const IS_FRAMES: FormPart = { field: "type", value: "frames" };
const DAMAGED = "the archive is damaged or too large";

const app = TestApp.forTests({
  env: { FILE_SIZE_LIMIT: String(FILE_BYTES_MAX), TRUSTED_PROXIES: "127.0.0.0/8" },
});
let session: TestSession;

beforeAll(async () => {
  session = await app.aSession();
});

/** Screenshots as the iOS SDK packs them. */
function frames(...sizes: number[]): Uint8Array {
  return concat(
    sizes.flatMap((size, index) => {
      const head = Buffer.alloc(12);
      head.writeBigUInt64LE(1_760_000_000_000n + BigInt(index));
      head.writeUInt32LE(size, 8);
      return [head, new Uint8Array(size)];
    }),
  );
}

/** Screenshots as the Android SDK packs them. */
async function tarOf(entries: [name: string, bytes: number][]): Promise<Uint8Array> {
  const pack = tar();
  for (const [name, bytes] of entries) pack.entry({ name }, Buffer.alloc(bytes));
  pack.finalize();
  const chunks: Uint8Array[] = [];
  for await (const chunk of pack) if (chunk instanceof Uint8Array) chunks.push(chunk);
  return concat(chunks);
}

describe("an archive", () => {
  test("of frame records is kept as it was sent, and read back as plain bytes", async () => {
    const archive = gzipSync(frames(5000, 0, 1, 12));
    const file = { file: "1-1.gz", bytes: archive, type: "gzip", part: "batch" };
    expect((await upload(app, session, [IS_FRAMES, file], MOBILE)).status).toBe(200);
    const answer = await app.fetch(`/v1/images/${app.project.id}/1-1.gz`);
    expect(answer.headers.get("content-type")).toBe("application/octet-stream");
    expect(answer.headers.get("content-encoding")).toBe(null);
    expect(Buffer.from(await answer.bytes())).toEqual(archive);
  });

  test("of files is kept as it was sent", async () => {
    const archive = gzipSync(await tarOf([1, 2, 3].map((n) => [`1_1_${n}.jpeg`, n * 700])));
    expect((await upload(app, session, [aFile("1-2.tar.gz", archive)], MOBILE)).status).toBe(200);
    expect(await imageOf(app, "1-2.tar.gz")).toEqual(Uint8Array.from(archive));
  });

  test("may come beside others, and every one is stored", async () => {
    const own = await app.aSession();
    const parts = [3, 4, 5].map((n) => aFile(`1-${n}.gz`, gzipSync(frames(n))));
    expect((await upload(app, own, parts, MOBILE)).status).toBe(200);
    expect(await imagesOf(app, own)).toEqual(["1-3.gz", "1-4.gz", "1-5.gz"]);
  });

  test("is never in imagesHashList, nor is anything in a form of frames", async () => {
    const own = await app.aSession();
    const plain = aFile("1-6.frames", frames(10));
    const parts = [aFile("an image"), aFile("1-7.gz", gzipSync(frames(1)))];
    for (const [network, sender] of [own, await app.aSession()].entries()) {
      const headers = from(network);
      const options = { ...MOBILE, headers };
      expect((await upload(app, sender, [plain, IS_FRAMES], options)).status).toBe(200);
      expect((await upload(app, sender, parts, { headers })).status).toBe(200);
    }
    await Bun.sleep(600);
    expect(await hashList(app)).toEqual(["an image"]);
    const { images } = await objectOf(app.fetch(`/v1/sessions/${own.sessionID}/images`));
    expect(images).toMatchObject([
      { name: "1-6.frames", kind: "frames" },
      { name: "1-7.gz", kind: "frames" },
      { name: "an image", kind: "image" },
    ]);
  });

  test("of exactly what may be unpacked is stored", async () => {
    const archive = gzipSync(frames(UNPACKED_BYTES_MAX - 12));
    expect((await upload(app, session, [aFile("full.gz", archive)], MOBILE)).status).toBe(200);
    expect(await imageOf(app, "full.gz")).toBeDefined();
  });
});

describe("a damaged archive is refused, and nothing of its form is stored", () => {
  const good = gzipSync(frames(1000, 2000));
  const noise = gzipSync(new Random(3).bytes(150_000));

  test.each<[string, string, Uint8Array | (() => Promise<Uint8Array>)]>([
    ["no gzip at all", "d-1.gz", frames(1000)],
    ["nothing", "d-2.gz", new Uint8Array()],
    ["nothing", "d-2.tar.gz", new Uint8Array()],
    ["a gzip that is cut short", "d-3.gz", good.subarray(0, -1)],
    ["a large gzip that is cut short", "d-4.gz", noise.subarray(0, 100_000)],
    ["a gzip with a wrong checksum", "d-5.gz", flipped(good, good.length - 8)],
    ["bytes behind the gzip", "d-6.gz", concat([good, Buffer.from("and more")])],
    ["a frame that is cut short", "d-7.gz", gzipSync(frames(1000).subarray(0, -1))],
    ["half a frame's head", "d-8.gz", gzipSync(frames(1000, 0).subarray(0, -1))],
    ["a tar that is no tar", "d-9.tar.gz", gzipSync(Buffer.alloc(5000, "not a tar "))],
    [
      "a tar that is cut short",
      "d-10.tar.gz",
      async () => gzipSync((await tarOf([["1_1_1.jpeg", 5000]])).subarray(0, 3000)),
    ],
    ["over a thousand files", "d-11.tar.gz", async () => gzipSync(await tarOf(manyEntries(1001)))],
    ["a byte more than may be unpacked", "d-12.gz", gzipSync(frames(UNPACKED_BYTES_MAX - 11))],
    ["a bomb", "d-13.gz", gzipSync(new Uint8Array(128 * MIB))],
    ["a bomb of a tar", "d-14.tar.gz", gzipSync(new Uint8Array(128 * MIB))],
  ])("%s (%s)", async (_what, name, content) => {
    const own = await app.aSession();
    const bytes = typeof content === "function" ? await content() : content;
    expect(bytes.length).toBeLessThanOrEqual(FILE_BYTES_MAX);
    const parts = [aFile("before it"), { file: name, bytes, type: "gzip" }, aFile("after it")];
    expect(await refusalOf(upload(app, own, parts, MOBILE))).toEqual([400, DAMAGED]);
    expect(await imagesOf(app, own)).toEqual([]);
    expect(await imageOf(app, name)).toBeUndefined();
  });

  test("a thousand files are not too many", async () => {
    const archive = gzipSync(await tarOf(manyEntries(1000)));
    expect((await upload(app, session, [aFile("many.tar.gz", archive)], MOBILE)).status).toBe(200);
  });

  test("bombs are not held while they are unpacked, however many come at once", async () => {
    const bomb = gzipSync(new Uint8Array(128 * MIB));
    Bun.gc(true);
    const before = process.memoryUsage().rss;
    const answers = await Promise.all(
      Array.from({ length: 12 }, (_, n) =>
        upload(app, session, [aFile(`b-${n}.gz`, bomb)], MOBILE),
      ),
    );
    expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 400));
    expect(process.memoryUsage().rss - before).toBeLessThan(160 * MIB);
  });
});

function manyEntries(count: number): [string, number][] {
  return Array.from({ length: count }, (_, n) => [`1_1_${n}.jpeg`, 1]);
}

function flipped(bytes: Uint8Array, at: number): Uint8Array {
  const copy = Uint8Array.from(bytes);
  copy[at] = (copy[at] ?? 0) ^ 1;
  return copy;
}
