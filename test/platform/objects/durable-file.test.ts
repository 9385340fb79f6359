import { randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";

import { DurableWriter } from "../../../src/platform/objects/durable-file.ts";
import { failure } from "../../support/failure.ts";

const KIB = 1024;

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "floodgate-durable-"));
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

/** A buffer as segments have: larger than what is written, with other bytes behind. */
function pages(kib: number): Buffer {
  const buffer = Buffer.allocUnsafeSlow(kib * KIB);
  buffer.set(randomBytes(buffer.length));
  return buffer;
}

describe("a file has exactly its bytes, and nothing of the memory behind them,", () => {
  test.each([
    0,
    1,
    64 * KIB - 1,
    64 * KIB,
    64 * KIB + 1,
    4 * 4096 * 20,
    4096 * 20 + 4095,
    900 * KIB,
  ])("with %d of them", async (length) => {
    const body = pages(1024).subarray(0, length);
    const path = join(folder, `whole-${length}`);
    await new DurableWriter().write(path, body);
    expect((await readFile(path)).equals(body)).toBe(true);
  });

  test.each<[string, (bytes: Buffer) => Uint8Array]>([
    ["begin within a page", (bytes) => bytes.subarray(10, 300 * KIB)],
    ["end with their buffer", (bytes) => bytes.subarray(4096)],
    ["end with their buffer, within a page", (bytes) => Buffer.from(bytes.subarray(0, 300_001))],
  ])("if they %s", async (what, select) => {
    const body = select(pages(512));
    const path = join(folder, what);
    await new DurableWriter().write(path, body);
    expect((await readFile(path)).equals(body)).toBe(true);
  });
});

test("a file that exists is not replaced", async () => {
  const path = join(folder, "taken");
  const body = pages(128);
  await new DurableWriter().write(path, body);
  const error = await failure(new DurableWriter().write(path, pages(128)));
  expect(String(error)).toContain("EEXIST");
  expect((await readFile(path)).equals(body)).toBe(true);
});

// Only root may mount.
const isRoot = process.getuid?.() === 0;

test.skipIf(!isRoot)("a file system without direct writes gets the same file", async () => {
  // ramfs refuses O_DIRECT.
  await mounted(["-t", "ramfs"], async (path) => {
    const body = pages(512).subarray(0, 300_001);
    const writer = new DurableWriter();
    for (const name of ["one", "two"]) await writer.write(join(path, name), body);
    for (const name of ["one", "two"])
      expect((await readFile(join(path, name))).equals(body)).toBe(true);
  });
});

test.skipIf(!isRoot)("a full disk rejects", async () => {
  await mounted(["-t", "tmpfs", "-o", `size=${256 * KIB}`], async (path) => {
    const error = await failure(new DurableWriter().write(join(path, "large"), pages(512)));
    expect(String(error)).toContain("ENOSPC");
  });
});

async function mounted(options: string[], use: (path: string) => Promise<void>): Promise<void> {
  const path = await mkdtemp(join(folder, "mounted-"));
  expect(Bun.spawnSync(["mount", ...options, "none", path]).exitCode).toBe(0);
  try {
    await use(path);
  } finally {
    Bun.spawnSync(["umount", path]);
  }
}
