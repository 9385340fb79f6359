import { gzipSync } from "node:zlib";
import { describe, expect, test } from "bun:test";
import { pack as tar } from "tar-stream";

import { type Frame, framesOf } from "../../src/images/frames.ts";
import { Lost } from "../../src/platform/objects/read-faults.ts";
import { concat } from "../support/batches.ts";
import { failure } from "../support/failure.ts";
import { frameRecord } from "../support/images.ts";
import { chunksOf } from "../support/stores.ts";

const MIB = 2 ** 20;
const LONG = new Uint8Array(300_000).fill(7);
const FRAMES: [at: number, bytes: Uint8Array][] = [
  [5, Buffer.from("abc")],
  [9, new Uint8Array()],
  [3, LONG],
  [4, Buffer.from("d")],
];
const RECORDS = concat(FRAMES.map(([at, bytes]) => frameRecord(at, bytes)));

async function tarOf(entries: { name: string; bytes?: Uint8Array; type?: "directory" }[]) {
  const pack = tar();
  for (const { name, bytes, type = "file" } of entries)
    pack.entry({ name, type }, Buffer.from(bytes ?? []));
  pack.finalize();
  const chunks: Uint8Array[] = [];
  for await (const chunk of pack) if (chunk instanceof Uint8Array) chunks.push(chunk);
  return concat(chunks);
}

async function read(name: string, bytes: Uint8Array, length = 60_000): Promise<[number, string][]> {
  const frames = await Array.fromAsync(framesOf(name, chunksOf(bytes, length)));
  return frames.map(shown);
}

function shown({ at, bytes }: Frame): [number, string] {
  return [Number(at), Bun.SHA256.hash(bytes, "hex")];
}

const EXPECTED = FRAMES.map(([at, bytes]) => shown({ at: BigInt(at), bytes }));

describe.each([1, 13, 4096, 10 * MIB])("read in chunks of %d bytes", (length) => {
  // Byte by byte only where there are few of them.
  const frames = length < 4096 ? FRAMES.filter(([, { length: long }]) => long < 100) : FRAMES;
  const records = concat(frames.map(([at, bytes]) => frameRecord(at, bytes)));
  const expected = frames.map(([at, bytes]) => shown({ at: BigInt(at), bytes }));

  test("records of frames are cut into frames, whatever their coding", async () => {
    expect(await read("1-9.frames", records, length)).toEqual(expected);
    expect(await read("1-9.gz", gzipSync(records), length)).toEqual(expected);
  });

  test("a tar has a frame in each file that is named by its time", async () => {
    const entries = frames.map(([at, bytes]) => ({ name: `100_1_${at}.jpeg`, bytes }));
    const others = [
      { name: "folder_7/", type: "directory" as const },
      { name: "readme.txt", bytes: LONG.subarray(0, 50) },
      { name: `${"x".repeat(150)}_8.jpeg`, bytes: LONG.subarray(0, 50) },
    ];
    const archive = gzipSync(await tarOf([...others, ...entries]));
    expect(await read("1-9.tar.gz", archive, length)).toEqual(expected);
  });
});

describe("of a damaged archive the frames before the damage are read", () => {
  test.each<[string, string, Uint8Array, number]>([
    [
      "a frame that claims 4 GB",
      "a.frames",
      concat([RECORDS, frameRecord(6, LONG, 2 ** 32 - 1)]),
      4,
    ],
    ["a frame that is cut short", "a.frames", concat([RECORDS, frameRecord(6, LONG, 300_001)]), 4],
    ["half a header", "a.frames", concat([RECORDS, new Uint8Array(11)]), 4],
    ["no gzip", "a.gz", RECORDS, 0],
    ["no tar", "a.tar.gz", gzipSync(RECORDS), 0],
    ["another name", "a.jpeg", RECORDS, 0],
  ])("%s", async (_what, name, bytes, count) => {
    expect(await read(name, bytes)).toEqual(EXPECTED.slice(0, count));
  });

  test("a gzip that is cut short", async () => {
    const noise = crypto.getRandomValues(new Uint8Array(60_000));
    const archive = gzipSync(concat([frameRecord(1, noise), frameRecord(2, noise.subarray(9))]));
    const frames = await read("a.gz", archive.subarray(0, -20_000));
    expect(frames).toEqual([shown({ at: 1n, bytes: noise })]);
  });

  test("a tar that is cut short", async () => {
    const archive = await tarOf([1, 2].map((at) => ({ name: `1_1_${at}.jpeg`, bytes: LONG })));
    const frames = await read("a.tar.gz", gzipSync(archive.subarray(0, 400_000)));
    expect(frames).toEqual([shown({ at: 1n, bytes: LONG })]);
  });
});

async function* failing(bytes: Uint8Array) {
  yield bytes.subarray(0, 100);
  throw new Lost("missing", "a key", undefined);
}

test("a source that fails is not taken for damage", async () => {
  for (const [name, bytes] of [
    ["a.gz", gzipSync(RECORDS)],
    ["a.tar.gz", gzipSync(await tarOf([{ name: "1_1_1.jpeg", bytes: LONG }]))],
    ["a.frames", RECORDS],
  ] as const)
    expect(await failure(Array.fromAsync(framesOf(name, failing(bytes))))).toBeInstanceOf(Lost);
});

test("a source is closed when nobody reads on", async () => {
  let isClosed = false;
  async function* endless() {
    try {
      for (;;) yield frameRecord(1, LONG);
    } finally {
      isClosed = true;
    }
  }
  for await (const { at } of framesOf("a.frames", endless())) {
    expect(at).toBe(1n);
    break;
  }
  expect(isClosed).toBe(true);
});
