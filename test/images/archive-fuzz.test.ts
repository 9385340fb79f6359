import { gzipSync } from "node:zlib";
import * as fc from "fast-check";
import { expect, test } from "bun:test";
import { pack as tar } from "tar-stream";

import { ArchiveCheck } from "../../src/images/archive.ts";
import { AppError } from "../../src/platform/errors.ts";
import { concat } from "../support/batches.ts";
import { failure } from "../support/failure.ts";

const FILE_BYTES_MAX = 10_000;

/** Unpacked archives to harm: frame records, and a tar of three small files. */
const FRAMES = concat(
  [3000, 0, 500].flatMap((size) => {
    const head = Buffer.alloc(12);
    head.writeUInt32LE(size, 8);
    return [head, new Uint8Array(size)];
  }),
);

async function tarBytes(): Promise<Uint8Array> {
  const pack = tar();
  for (const [name, bytes] of Object.entries({
    "1_1_1.jpeg": 700,
    "1_1_2.jpeg": 0,
    "1_1_3.jpeg": 1500,
  }))
    pack.entry({ name }, Buffer.alloc(bytes, 7));
  pack.finalize();
  const chunks: Uint8Array[] = [];
  for await (const chunk of pack) if (chunk instanceof Uint8Array) chunks.push(chunk);
  return concat(chunks);
}

type Harm = { flips: [at: number, bit: number][]; end: number };

const harm: fc.Arbitrary<Harm> = fc.record({
  flips: fc.array(fc.tuple(fc.nat(), fc.nat(7)), { maxLength: 3 }),
  end: fc.oneof(fc.constant(0), fc.nat()),
});

/** With bits flipped, and cut unless `end` is 0. */
function harmed(bytes: Uint8Array, { flips, end }: Harm): Uint8Array {
  const copy = Uint8Array.from(bytes);
  for (const [at, bit] of flips) {
    const index = at % copy.length;
    copy[index] = (copy[index] ?? 0) ^ (1 << bit);
  }
  return end === 0 ? copy : copy.subarray(0, end % copy.length);
}

async function check(name: string, archive: Uint8Array, chunkBytes: number): Promise<void> {
  const checking = ArchiveCheck.for(name, FILE_BYTES_MAX);
  expect(checking).toBeDefined();
  for (let at = 0; at < archive.length; at += chunkBytes)
    await checking?.write(archive.subarray(at, at + chunkBytes));
  await checking?.end();
}

/** A failure that nobody hears would end the process, and fails a test at once. */
test.each<[string, () => Promise<Uint8Array>]>([
  ["a.gz", async () => FRAMES],
  ["a.tar.gz", tarBytes],
])("%s passes or is refused, whatever is harmed in it", async (name, make) => {
  const whole = await make();
  await check(name, gzipSync(whole), 1000);
  const outcomes = new Set<string>();
  await fc.assert(
    fc.asyncProperty(
      harm,
      harm,
      fc.integer({ min: 1, max: 400 }),
      async (inside, outside, size) => {
        const archive = harmed(gzipSync(harmed(whole, inside)), outside);
        const error = await failure(check(name, archive, size));
        if (error !== undefined) expect(error).toBeInstanceOf(AppError);
        outcomes.add(error instanceof AppError ? error.code : "passed");
      },
    ),
    { numRuns: 400 },
  );
  expect([...outcomes].toSorted()).toEqual(["invalid", "passed"]);
});

test("the bytes given to it may be overwritten as soon as it has taken them", async () => {
  const archive = gzipSync(FRAMES);
  const checking = ArchiveCheck.for("a.gz", FILE_BYTES_MAX);
  for (const byte of archive) {
    const chunk = Uint8Array.of(byte);
    const writing = checking?.write(chunk);
    chunk.fill(0xff);
    await writing;
  }
  expect(await failure(Promise.resolve(checking?.end()))).toBeUndefined();
});

test("a name of another ending is no archive", () => {
  for (const name of ["a", "a.png", "a.gz.png", "gz", "a.zip", "a.GZ"])
    expect(ArchiveCheck.for(name, FILE_BYTES_MAX)).toBeUndefined();
});
