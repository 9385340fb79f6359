import { Readable, pipeline } from "node:stream";
import { createGunzip } from "node:zlib";

import { type Sql } from "../platform/database/database.ts";
import { codeOf } from "../platform/errors.ts";
import { type ImageRow, listImages } from "./reading.ts";
import { DamagedArchive, TarWalk } from "./tar-check.ts";

/** Length of the header of a frame record: timestamp u64 and size u32, both little endian. */
export const FRAME_HEADER_BYTES = 12;
// A longer frame is not an image: it would have to be held in memory.
const FRAME_BYTES_MAX = 16 * 2 ** 20;
const PAGE_IMAGES = 1000;
/** Name of a screenshot in a tar: it ends with the time. */
const SCREENSHOT = /_(\d{1,18})\.\w{1,8}$/;

/** Image of a screen or of a canvas element, and when it was taken, in epoch ms. */
export type Frame = { at: bigint; bytes: Uint8Array };

/** Lists up to that many files of frames that a session sent. */
export async function listFrames(sql: Sql, sessionId: bigint, max: number): Promise<ImageRow[]> {
  const frames: ImageRow[] = [];
  let cursor: string | null = null;
  do {
    const page: Awaited<ReturnType<typeof listImages>> = await listImages(sql, sessionId, {
      limit: PAGE_IMAGES,
      ...(cursor !== null && { cursor }),
    });
    frames.push(...page.images.filter(({ kind }) => kind === "frames"));
    cursor = page.nextCursor;
  } while (cursor !== null && frames.length < max);
  return frames.slice(0, max);
}

/**
 * Yields the frames in an archive, one in memory at a time, up to where it is damaged. Its name
 * tells its format, as ArchiveCheck describes them.
 */
export async function* framesOf(
  name: string,
  chunks: AsyncIterable<Uint8Array>,
): AsyncGenerator<Frame> {
  const isGzip = name.endsWith(".gz");
  if (!isGzip && !name.endsWith(".frames")) return;
  const frames = name.endsWith(".tar.gz") ? new TarFrames() : new FrameRecords();
  try {
    for await (const piece of isGzip ? inflated(chunks) : chunks) yield* frames.write(piece);
  } catch (error) {
    if (!(error instanceof DamagedArchive || codeOf(error).startsWith("Z_"))) throw error;
  }
}

function inflated(chunks: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  // The callback is required; errors are thrown by whoever reads the engine.
  return pipeline(Readable.from(chunks), createGunzip(), () => undefined);
}

/** Cuts frame records into frames. */
class FrameRecords {
  readonly #header = Buffer.alloc(FRAME_HEADER_BYTES);
  #have = 0;
  #frame: FrameBuffer | undefined;

  /** Throws DamagedArchive if a frame is too long. */
  *write(chunk: Uint8Array): Generator<Frame> {
    for (let at = 0; ;) {
      if (this.#frame === undefined) {
        const piece = chunk.subarray(at, at + FRAME_HEADER_BYTES - this.#have);
        this.#header.set(piece, this.#have);
        this.#have += piece.length;
        at += piece.length;
        if (this.#have < FRAME_HEADER_BYTES) return;
        this.#have = 0;
        const time = this.#header.readBigUInt64LE(0);
        this.#frame = new FrameBuffer(time, this.#header.readUInt32LE(8));
      }
      at += this.#frame.write(chunk.subarray(at, at + this.#frame.left));
      if (this.#frame.left > 0) return;
      yield this.#frame;
      this.#frame = undefined;
    }
  }
}

/** Takes the screenshots out of a tar archive. Skips files that are not named like one. */
class TarFrames {
  readonly #walk: TarWalk;
  #frame: FrameBuffer | undefined;
  #whole: Frame[] = [];

  constructor() {
    this.#walk = new TarWalk({
      begin: (name, bytes) => {
        const [, time] = SCREENSHOT.exec(name) ?? [];
        this.#frame = time === undefined ? undefined : new FrameBuffer(BigInt(time), bytes);
      },
      write: (piece) => this.#frame?.write(piece),
      end: () => {
        if (this.#frame !== undefined) this.#whole.push(this.#frame);
      },
    });
  }

  /** Throws DamagedArchive, also if a file is too long. */
  *write(chunk: Uint8Array): Generator<Frame> {
    try {
      this.#walk.write(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length));
    } finally {
      yield* this.#whole.splice(0);
    }
  }
}

class FrameBuffer implements Frame {
  readonly at: bigint;
  readonly bytes: Uint8Array;
  left: number;

  /** Throws DamagedArchive if a frame cannot have that many bytes. */
  constructor(at: bigint, bytes: number) {
    if (bytes > FRAME_BYTES_MAX) throw new DamagedArchive("a frame is too long");
    this.at = at;
    this.bytes = new Uint8Array(bytes);
    this.left = bytes;
  }

  /** Returns the number of bytes written, which may not be more than are left. */
  write(piece: Uint8Array): number {
    this.bytes.set(piece, this.bytes.length - this.left);
    this.left -= piece.length;
    return piece.length;
  }
}
