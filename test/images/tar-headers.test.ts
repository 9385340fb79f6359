import { gzipSync } from "node:zlib";
import { describe, expect, test } from "bun:test";
import { pack as tar } from "tar-stream";

import { ArchiveCheck } from "../../src/images/archive.ts";
import { concat } from "../support/batches.ts";
import { failure } from "../support/failure.ts";

const MIB = 2 ** 20;
const FILE_BYTES_MAX = 10_000_000;

type Entry = Parameters<ReturnType<typeof tar>["entry"]>[0];

async function tarOf(...entries: [entry: Entry, content?: string][]): Promise<Buffer> {
  const pack = tar();
  for (const [entry, content] of entries) pack.entry(entry, content ?? "");
  pack.finalize();
  const chunks: Uint8Array[] = [];
  for await (const chunk of pack) if (chunk instanceof Uint8Array) chunks.push(chunk);
  return Buffer.from(concat(chunks));
}

/** Makes a header of any type and size with a valid checksum. */
function header(type: string, size: string | Uint8Array, name = "a"): Buffer {
  const block = Buffer.alloc(512);
  block.write(name);
  block.write(["0000644", "0000000", "0000000", ""].join("\0"), 100);
  if (typeof size === "string") block.write(size, 124);
  else block.set(size, 124);
  block.write("00000000000\0        ", 136);
  block.write(type, 156);
  block.write("ustar\0", 257);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return block;
}

function octal(size: number): string {
  return `${size.toString(8).padStart(11, "0")}\0`;
}

function blocks(content: string | Uint8Array): Buffer {
  const bytes = Buffer.from(content);
  return Buffer.concat([bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)]);
}

/** Returns undefined if the archive passes, else the error. */
async function check(bytes: Uint8Array, chunkBytes = 50_000): Promise<unknown> {
  const archive = gzipSync(bytes);
  const checking = ArchiveCheck.for("a.tar.gz", FILE_BYTES_MAX);
  const all = async () => {
    for (let at = 0; at < archive.length; at += chunkBytes)
      await checking?.write(archive.subarray(at, at + chunkBytes));
    await checking?.end();
  };
  return await failure(all());
}

const REFUSED = { code: "invalid", message: "the archive is damaged or too large" };
const END = Buffer.alloc(1024);

describe("a tar passes", () => {
  test.each<[string, () => Promise<Buffer> | Buffer]>([
    [
      "with names that need PAX headers",
      async () =>
        await tarOf([{ name: `${"ä".repeat(200)}.png` }, "an image"], [{ name: "b" }, "another"]),
    ],
    [
      "with attributes in PAX headers",
      async () =>
        await tarOf([{ name: "a", pax: { "SCHILY.xattr.user": "x".repeat(9000) } }, "an image"]),
    ],
    [
      "with folders and links",
      async () =>
        await tarOf(
          [{ name: "a", type: "directory" }],
          [{ name: "b", type: "symlink", linkname: "a" }],
          [{ name: "c" }, "x"],
        ),
    ],
    [
      "with the long names of GNU",
      () =>
        Buffer.concat([
          header("L", octal(300), "././@LongLink"),
          blocks("n".repeat(300)),
          header("0", octal(3)),
          blocks("abc"),
          END,
        ]),
    ],
    [
      "with a size in binary",
      () =>
        Buffer.concat([
          header("0", Uint8Array.of(0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1)),
          blocks("x".repeat(513)),
          END,
        ]),
    ],
    [
      "with a size in a PAX header",
      () =>
        Buffer.concat([
          header("x", octal(12)),
          blocks("12 size=600\n"),
          header("0", octal(0)),
          blocks("x".repeat(600)),
          END,
        ]),
    ],
    ["without the blocks at its end", () => Buffer.concat([header("0", octal(3)), blocks("abc")])],
    ["of nothing", () => END],
    [
      "of zeros at its end",
      () => Buffer.concat([header("0", octal(3)), blocks("abc"), Buffer.alloc(10_240)]),
    ],
  ])("%s", async (_what, make) => {
    const bytes = await make();
    for (const chunkBytes of [3, 50_000]) expect(await check(bytes, chunkBytes)).toBeUndefined();
  });
});

describe("a tar is refused", () => {
  const pax = (bytes: number) =>
    Buffer.concat([header("x", octal(bytes)), Buffer.alloc(bytes, "1")]);
  const small = Buffer.concat([header("g", octal(0)), header("L", octal(0))]);

  test.each<[string, Buffer]>([
    ["with PAX headers of 4 MiB", Buffer.concat(Array.from({ length: 8 }, () => pax(4 * MIB)))],
    ["with a PAX header of 20 KiB", Buffer.concat([pax(20 * 1024), header("0", octal(0)), END])],
    [
      "with a long name of 20 KiB",
      Buffer.concat([header("L", octal(20 * 1024)), Buffer.alloc(20 * 1024), END]),
    ],
    ["with a long link of a gigabyte", Buffer.concat([header("K", octal(2 ** 30)), END])],
    [
      "with thousands of headers and no file",
      Buffer.concat(Array.from({ length: 1001 }, () => small)),
    ],
    [
      "with a PAX header that is none",
      Buffer.concat([header("x", octal(512)), blocks("9999 path=a\n"), header("0", octal(0)), END]),
    ],
    [
      "with a PAX record of no length",
      Buffer.concat([header("x", octal(512)), blocks("0 path=a\n"), header("0", octal(0)), END]),
    ],
    ["with a size that no file has", Buffer.concat([header("0", Buffer.alloc(12, 0xff)), END])],
    ["with a size beyond its end", Buffer.concat([header("0", octal(2 ** 32)), END])],
    ["with a size that is no number", Buffer.concat([header("0", "0000000000x\0"), END])],
    ["with a sparse file", Buffer.concat([header("S", octal(0)), END])],
    ["with a wrong checksum", Buffer.concat([header("0", octal(0)).fill("x", 0, 1), END])],
    ["with half a header", Buffer.concat([header("0", octal(0)), Buffer.alloc(100)])],
  ])("%s", async (_what, bytes) => {
    for (const chunkBytes of [311, 50_000])
      expect(await check(bytes, chunkBytes)).toMatchObject(REFUSED);
  });

  test("without its headers being held", async () => {
    const bomb = Buffer.concat(Array.from({ length: 8 }, () => pax(4 * MIB)));
    Bun.gc(true);
    const before = process.memoryUsage().rss;
    const { user } = process.cpuUsage();
    for (let n = 0; n < 5; n++) expect(await check(bomb)).toMatchObject(REFUSED);
    expect(process.memoryUsage().rss - before).toBeLessThan(100 * MIB);
    // Mostly spent on packing them; parsing used to take seconds.
    expect(process.cpuUsage().user - user).toBeLessThan(3_000_000);
  });
});

test("millions of empty frames pass without holding the process up", async () => {
  const archive = gzipSync(new Uint8Array(12 * 1_000_000), { level: 9 });
  const checking = ArchiveCheck.for("a.gz", FILE_BYTES_MAX);
  await checking?.write(archive);
  const longest = longestTurn();
  await checking?.end();
  expect(longest()).toBeLessThan(50);
});

/** Measures from now on the CPU time of the longest turn of the event loop, in ms. */
function longestTurn(): () => number {
  let most = 0;
  let before = process.threadCpuUsage();
  const timer = setInterval(() => {
    const { user, system } = process.threadCpuUsage(before);
    most = Math.max(most, (user + system) / 1000);
    before = process.threadCpuUsage();
  }, 1);
  return () => {
    clearInterval(timer);
    return most;
  };
}
