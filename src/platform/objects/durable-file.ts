import { constants, type FileHandle, open, rm } from "node:fs/promises";

import { codeOf } from "../errors.ts";

// The size and alignment that every disk takes for direct writes.
const BLOCK_BYTES = 4096;
// Smaller bodies gain nothing: the fsync costs more than the copy.
const BYTES_MIN = 64 * 1024;
const REFUSALS_MAX = 3;
const { O_CREAT, O_DIRECT, O_EXCL, O_WRONLY } = constants;

/**
 * Creates durable files from bytes in memory, past the page cache where possible: copying a segment
 * into it costs more CPU than all other steps of a commit.
 */
export class DurableWriter {
  /** Cleared by a file system without direct writes, or one that refuses them again and again. */
  #isSupported = O_DIRECT > 0;
  #refusals = 0;

  async write(path: string, body: Uint8Array): Promise<void> {
    if (await this.#writeDirectly(path, body)) return;
    await writeDurably(path, async (file) => await file.writeFile(body));
  }

  /**
   * Returns false, with nothing left at `path`, where a direct write is impossible: the body is
   * small, its memory is not aligned, or the file system refuses. Memory after the body, up to a
   * whole block, is written as well and cut off again.
   */
  async #writeDirectly(path: string, body: Uint8Array): Promise<boolean> {
    const blocks = this.#isSupported ? wholeBlocks(body) : undefined;
    if (blocks === undefined) return false;
    const file = await this.#create(path);
    if (file === undefined) return false;
    try {
      await writeBlocks(file, blocks);
      await file.truncate(body.length);
      await file.datasync();
      return true;
    } catch (error) {
      if (!isRefusal(error)) throw error;
      // The memory is not aligned as this disk needs it, or the file system takes only the flag.
      this.#isSupported = ++this.#refusals < REFUSALS_MAX;
      await rm(path);
      return false;
    } finally {
      await file.close();
    }
  }

  async #create(path: string): Promise<FileHandle | undefined> {
    try {
      return await open(path, O_WRONLY | O_CREAT | O_EXCL | O_DIRECT);
    } catch (error) {
      if (!isRefusal(error)) throw error;
      this.#isSupported = false;
      // The file may have been created before the flag was refused.
      await rm(path, { force: true });
      return undefined;
    }
  }
}

/** Creates a file that `write` fills, and makes its bytes durable. */
export async function writeDurably(
  path: string,
  write: (file: FileHandle) => Promise<void>,
): Promise<void> {
  await using file = await open(path, "wx");
  await write(file);
  await file.datasync();
}

function wholeBlocks({ buffer, byteOffset, length }: Uint8Array): Uint8Array | undefined {
  const bytes = Math.ceil(length / BLOCK_BYTES) * BLOCK_BYTES;
  const fits = byteOffset % BLOCK_BYTES === 0 && byteOffset + bytes <= buffer.byteLength;
  return length >= BYTES_MIN && fits ? new Uint8Array(buffer, byteOffset, bytes) : undefined;
}

async function writeBlocks(file: FileHandle, blocks: Uint8Array): Promise<void> {
  for (let at = 0; at < blocks.length;) {
    const { bytesWritten } = await file.write(blocks, at, blocks.length - at, at);
    // A short write may end within a block, which is then written again.
    const written = at + bytesWritten;
    const next = written === blocks.length ? written : written - (written % BLOCK_BYTES);
    if (next <= at) throw new Error("files: the disk takes no more bytes");
    at = next;
  }
}

function isRefusal(error: unknown): boolean {
  return codeOf(error) === "EINVAL";
}
