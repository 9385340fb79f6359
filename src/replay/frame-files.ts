import { type Frame } from "../images/frames.ts";
import { type ImageRow } from "../images/reading.ts";
import { Lost } from "../platform/objects/read-faults.ts";
import { type ReadOptions, type ReplayFile } from "./replay-file.ts";

/** Frames of one canvas element, as the web tracker names their files. */
const CANVAS = /^\d{1,16}_\d{1,16}\.[a-z]{3,4}\.frames$/;
/** A single frame of a canvas element: its file has the time before the type. */
const SNAPSHOT = /^(?<canvas>\d{1,16}_\d{1,16})_(?<time>\d{1,16})(?<type>\.[a-z]{3,4})$/;
/** Archive of frames, by its name. */
const ARCHIVE = /\.(?:gz|frames)$/;
/** Time of the last frame in the name of an archive of screenshots. */
const LAST_TIME = /-(\d{1,16})(?:\.tar)?\.gz$/;

const HEADER_BYTES = 12;
// Bytes of frames that are held to be sorted. Archives seldom overlap.
const SORTED_BYTES = 8 * 2 ** 20;
// Memory that a frame takes beside its bytes, roughly.
const FRAME_BYTES = 256;

/** Gives access to a session's images. */
export type FrameImages = {
  /** Lists the session's files of frames. */
  list: () => Promise<ImageRow[]>;
  /** Yields the bytes of a file from `start` up to but without `end`. Throws Lost. */
  bytes: (image: ImageRow, start: number, end: number) => AsyncGenerator<Uint8Array>;
  /** Yields the frames in a file. Throws Lost. */
  frames: (image: ImageRow) => AsyncGenerator<Frame>;
};

/** Returns the file of a session's screenshots and those of its canvas elements. */
export async function frameFiles(source: FrameImages): Promise<ReplayFile[]> {
  const images = await source.list();
  const byCanvas = Map.groupBy(images, ({ name }) => canvasOf(name));
  const screens = byCanvas.get(undefined)?.filter(({ name }) => ARCHIVE.test(name)) ?? [];
  byCanvas.delete(undefined);
  const canvases = [...byCanvas].map(([name = "", parts]) => canvasFile(name, parts, source));
  canvases.sort((a, b) => (a.name < b.name ? -1 : 1));
  return screens.length === 0 ? canvases : [screensFile(screens, source), ...canvases];
}

/** Returns the name of the file that an image of a canvas element goes into. */
function canvasOf(name: string): string | undefined {
  if (CANVAS.test(name)) return name;
  const { canvas, type } = SNAPSHOT.exec(name)?.groups ?? {};
  return canvas === undefined ? undefined : `${canvas}${type}.frames`;
}

/** Returns the frames of one canvas element, in the order in which they were sent. */
function canvasFile(name: string, images: ImageRow[], source: FrameImages): ReplayFile {
  const parts = sortedBy(images, ({ storedAt }) => storedAt.getTime()).map((image) =>
    partOf(image, source),
  );
  const bytes = parts.reduce((sum, part) => sum + part.bytes, 0);
  async function* read({ start = 0, end = bytes, skipMissing = false }: ReadOptions = {}) {
    let at = 0;
    for (const part of parts) {
      const from = Math.max(0, start - at);
      const to = Math.min(part.bytes, end - at);
      at += part.bytes;
      if (skipMissing) yield* recordsOf(part.frames(), { skipMissing });
      else if (from < to) yield* part.read(from, to);
    }
  }
  return { name, bytes, tag: tagOf(images), read };
}

/** Part of a canvas's file, as records of frames. */
type Part = {
  bytes: number;
  read: (start: number, end: number) => AsyncGenerator<Uint8Array>;
  frames: () => AsyncGenerator<Frame>;
};

function partOf(image: ImageRow, source: FrameImages): Part {
  const { time } = SNAPSHOT.exec(image.name)?.groups ?? {};
  if (time === undefined)
    return {
      bytes: image.bytes,
      read: (start, end) => source.bytes(image, start, end),
      frames: () => source.frames(image),
    };
  const at = BigInt(time);
  const header = headerOf(at, image.bytes);
  return {
    bytes: HEADER_BYTES + image.bytes,
    async *read(start, end) {
      if (start < HEADER_BYTES) yield header.subarray(start, end);
      const from = Math.max(0, start - HEADER_BYTES);
      if (end > HEADER_BYTES) yield* source.bytes(image, from, end - HEADER_BYTES);
    },
    async *frames() {
      const pieces = await Array.fromAsync(source.bytes(image, 0, image.bytes));
      yield { at, bytes: Buffer.concat(pieces) };
    },
  };
}

/**
 * Returns all screenshots of a phone in the order of their times. They are sorted as far as
 * archives overlap by less than what is held of them; players sort them, too.
 */
function screensFile(images: ImageRow[], source: FrameImages): ReplayFile {
  const archives = sortedBy(images, ({ name, storedAt }) => {
    const [, last] = LAST_TIME.exec(name) ?? [];
    return last === undefined ? storedAt.getTime() : Number(last);
  });
  async function* read(options: ReadOptions = {}) {
    yield* recordsOf(sorted(framesOf(archives, source, options)), {});
  }
  return { name: "replay.frames", bytes: undefined, tag: tagOf(images), read };
}

async function* framesOf(
  archives: ImageRow[],
  source: FrameImages,
  options: ReadOptions,
): AsyncGenerator<Frame> {
  for (const archive of archives) yield* unlessLost(source.frames(archive), options);
}

async function* sorted(frames: AsyncIterable<Frame>): AsyncGenerator<Frame> {
  const held: Frame[] = [];
  let bytes = 0;
  for await (const frame of frames) {
    held.splice(held.findLastIndex(({ at }) => at <= frame.at) + 1, 0, frame);
    bytes += frame.bytes.length + FRAME_BYTES;
    while (bytes > SORTED_BYTES) {
      const [first] = held.splice(0, 1);
      if (first === undefined) break;
      bytes -= first.bytes.length + FRAME_BYTES;
      yield first;
    }
  }
  yield* held;
}

async function* recordsOf(
  frames: AsyncIterable<Frame>,
  options: ReadOptions,
): AsyncGenerator<Uint8Array> {
  for await (const { at, bytes } of unlessLost(frames, options)) {
    yield headerOf(at, bytes.length);
    yield bytes;
  }
}

/** Yields the same, and ends where the rest is lost if that is to be omitted. */
async function* unlessLost<T>(
  all: AsyncIterable<T>,
  { skipMissing = false }: ReadOptions,
): AsyncGenerator<T> {
  try {
    yield* all;
  } catch (error) {
    if (!(skipMissing && error instanceof Lost)) throw error;
  }
}

function headerOf(at: bigint, bytes: number): Uint8Array {
  const header = Buffer.allocUnsafe(HEADER_BYTES);
  header.writeBigUInt64LE(at);
  header.writeUInt32LE(bytes, 8);
  return header;
}

function sortedBy(images: ImageRow[], timeOf: (image: ImageRow) => number): ImageRow[] {
  // The list is in the order of names, which decides among equal times.
  return images.toSorted((a, b) => timeOf(a) - timeOf(b));
}

function tagOf(images: ImageRow[]): string {
  const contents = images.map(({ name, bytes, crc32, sha256, storedAt }) =>
    [name, bytes, crc32, sha256, storedAt.getTime()].join(" "),
  );
  return Bun.SHA256.hash(contents.join("\n"), "hex").slice(0, 32);
}
