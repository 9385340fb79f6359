import { once } from "node:events";
import { Writable } from "node:stream";
import { createGunzip } from "node:zlib";

import { AppError } from "../platform/errors.ts";
import { tarEntries } from "./tar-check.ts";

// Screenshots are compressed already: a file that grows more than that is a bomb.
const GROWTH_MAX = 4;
const FRAME_HEADER_BYTES = 12;

/** Reads a screenshot archive of a mobile SDK while it passes, and keeps nothing of it: `.tar.gz` of files, or `.gz` of frame records. */
export class ArchiveCheck {
  readonly #gunzip = createGunzip();
  readonly #finished: Promise<void>;

  private constructor(content: Writable, bytesMax: number) {
    let bytes = 0;
    this.#gunzip.on("data", (chunk: Uint8Array) => {
      bytes += chunk.length;
      if (bytes > bytesMax) this.#gunzip.destroy(new Error("too large"));
    });
    this.#gunzip.pipe(content);
    this.#gunzip.on("error", (error) => content.destroy(error));
    content.on("error", (error) => this.#gunzip.destroy(error));
    this.#finished = once(content, "finish").then(() => undefined);
    // Awaited at the end only: a failure before must not count as unhandled.
    this.#finished.catch(() => undefined);
  }

  /** Undefined for a name that is no archive's. */
  static for(name: string, fileBytesMax: number): ArchiveCheck | undefined {
    if (name.endsWith(".tar.gz")) return new ArchiveCheck(tarEntries(), fileBytesMax * GROWTH_MAX);
    return name.endsWith(".gz")
      ? new ArchiveCheck(frameRecords(), fileBytesMax * GROWTH_MAX)
      : undefined;
  }

  /** Throws 400 when the archive is damaged or too large inside. */
  async write(bytes: Uint8Array): Promise<void> {
    // A copy: the bytes are a view of what the network delivered, and gunzip reads them later.
    if (this.#gunzip.write(Uint8Array.from(bytes))) return;
    await this.#valid(Promise.race([once(this.#gunzip, "drain"), this.#finished]));
  }

  async end(): Promise<void> {
    this.#gunzip.end();
    await this.#valid(this.#finished);
  }

  async #valid(step: Promise<unknown>): Promise<void> {
    try {
      await step;
    } catch (cause) {
      throw new AppError("invalid", "the archive is damaged or too large", { cause });
    }
  }
}

/** Frame records, as the SDKs write them: timestamp u64, size u32, both little endian, then that many bytes. */
function frameRecords(): Writable {
  const header = Buffer.alloc(FRAME_HEADER_BYTES);
  let have = 0;
  let skip = 0;
  return new Writable({
    write(chunk: Buffer, _encoding, done) {
      for (let at = 0; at < chunk.length;) {
        const skipped = Math.min(skip, chunk.length - at);
        skip -= skipped;
        at += skipped;
        const copied = chunk.copy(header, have, at, at + FRAME_HEADER_BYTES - have);
        at += copied;
        have += copied;
        if (have < FRAME_HEADER_BYTES) continue;
        skip = header.readUInt32LE(8);
        have = 0;
      }
      done();
    },
    final: (done) =>
      done(have > 0 || skip > 0 ? new Error("the last frame is cut short") : undefined),
  });
}
