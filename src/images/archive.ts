import { once } from "node:events";
import { Writable } from "node:stream";
import { createGunzip } from "node:zlib";

import { AppError } from "../platform/errors.ts";
import { FRAME_HEADER_BYTES } from "./frames.ts";
import { tarEntries } from "./tar-check.ts";

// An archive may inflate to this many times the largest file. Screenshots are compressed already,
// so one that inflates to more is a decompression bomb.
const GROWTH_MAX = 4;

/**
 * Validates an archive of screenshots or canvas images as it streams by, without buffering it:
 * `.tar.gz` of files, `.gz` of frame records, or `.frames` of plain frame records.
 */
export class ArchiveCheck {
  readonly #input: Writable;
  readonly #finished: Promise<void>;

  /** `content` gets what is written to `input`, without its compression. */
  private constructor(input: Writable, content: Writable) {
    this.#input = input;
    this.#finished = once(content, "finish").then(() => undefined);
    // A failure before anything awaits this promise must not count as an unhandled rejection.
    this.#finished.catch(() => undefined);
  }

  /** Returns undefined unless the file name is that of an archive. */
  static for(name: string, fileBytesMax: number): ArchiveCheck | undefined {
    if (name.endsWith(".frames")) {
      const records = frameRecords();
      return new ArchiveCheck(records, records);
    }
    if (!name.endsWith(".gz")) return undefined;
    const content = name.endsWith(".tar.gz") ? tarEntries() : frameRecords();
    return new ArchiveCheck(gunzip(content, fileBytesMax * GROWTH_MAX), content);
  }

  /** Throws 400 if the archive is damaged or inflates to too many bytes. */
  async write(bytes: Uint8Array): Promise<void> {
    // Copies the bytes: they are a view of a network buffer, and may be read later.
    if (this.#input.write(Uint8Array.from(bytes))) return;
    await this.#valid(Promise.race([once(this.#input, "drain"), this.#finished]));
  }

  async end(): Promise<void> {
    this.#input.end();
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

/** Returns a stream that inflates into the content, up to that many bytes. */
function gunzip(content: Writable, bytesMax: number): Writable {
  const engine = createGunzip();
  let bytes = 0;
  engine.on("data", (chunk: Uint8Array) => {
    bytes += chunk.length;
    if (bytes > bytesMax) engine.destroy(new Error("too large"));
  });
  engine.pipe(content);
  engine.on("error", (error) => content.destroy(error));
  content.on("error", (error) => engine.destroy(error));
  return engine;
}

/**
 * Checks the frame records that SDKs write: timestamp u64 and size u32, both little endian, then
 * that many bytes.
 */
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
