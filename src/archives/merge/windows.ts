import { LRUCache } from "lru-cache";

import { isLost } from "../../log/checked-segment.ts";
import { type Footer, checkLength, footerBytes, readFooter } from "../../log/footer.ts";
import {
  compareRecord,
  readHeader,
  RECORD_HEADER_BYTES,
  recordBody,
  type RecordHead,
  type SegmentEntry,
  SegmentError,
  viewOf,
} from "../../log/record.ts";
import { discarded } from "../../platform/gc.ts";
import { type ObjectStore } from "../../platform/objects/objects.ts";
import { Lost } from "../../platform/objects/read-faults.ts";
import { type ArchiveName, archiveKey } from "../archive-key.ts";
import { type ArchivedBatch, type Frame, unpackFrame } from "../piece-index.ts";

const MEMORY_BYTES = 64 * 2 ** 20;
const WINDOW_BYTES = { min: 64 * 1024, max: 8 * 2 ** 20 };
const INDEX_WINDOW_BYTES = 128 * 1024;
const TAIL_BYTES = 64 * 1024;

/** An archive that is read. */
export type Input = ArchiveName & { bytes: number };

/** Verified record; `next` is where the header of the next one begins. */
export type ReadRecord = { head: RecordHead; body: Uint8Array; next: number };

/** Part of an object. What is read in each part moves forward, so that each has a window. */
type Part = "records" | "indexes" | "footer";

/**
 * Reads archives through windows, which hold a bounded number of bytes together with the frames
 * that were inflated last. What was let go is read again. Throws Lost if a record is not what was
 * written.
 */
export class InputWindows {
  readonly #objects: ObjectStore;
  readonly #signal: AbortSignal;
  readonly #windowBytes: number;
  readonly #windows: LRUCache<string, { start: number; bytes: Uint8Array }>;
  readonly #frames: LRUCache<string, Uint8Array[]>;
  /** Bytes that were read from the store. */
  bytesRead = 0;

  constructor(
    objects: ObjectStore,
    {
      inputs,
      memoryBytes = MEMORY_BYTES,
      signal,
    }: { inputs: number; memoryBytes?: number | undefined; signal: AbortSignal },
  ) {
    this.#objects = objects;
    this.#signal = signal;
    const { min, max } = WINDOW_BYTES;
    // Half of the memory for one window of each input, a quarter for those of their indexes.
    this.#windowBytes = Math.max(min, Math.min(max, Math.floor(memoryBytes / 2 / inputs)));
    this.#windows = new LRUCache({
      maxSize: memoryBytes * 0.75,
      sizeCalculation: ({ bytes }) => Math.max(1, bytes.length),
      dispose: ({ bytes }) => discarded(bytes.length),
    });
    this.#frames = new LRUCache({ maxSize: memoryBytes / 4 });
  }

  /** Reads a part of the archive with one request, if it fits into a window. */
  async ahead(input: Input, start: number, length: number): Promise<void> {
    if (length > this.#windowBytes) return;
    await this.#verified(input, async (read) => await read(start, start + length, 0, "records"));
  }

  /** Reads the record whose header begins at `at`, and that ends at `end` at the latest. */
  async record(input: Input, at: number, end: number, part: Part = "records"): Promise<ReadRecord> {
    const start = at + RECORD_HEADER_BYTES;
    return await this.#verified(input, async (read) => {
      if (start > end) throw new SegmentError("a record is missing");
      const next = start + viewOf(await read(at, start, end, part)).getUint32(0, true);
      if (next > end) throw new SegmentError("a record is longer than its piece");
      const record = await read(at, next, end, part);
      const { length: _, ...head } = readHeader(record);
      return { head, body: recordBody(record), next };
    });
  }

  /** Reads the body of a record that the footer lists. */
  async entry(input: Input, entry: SegmentEntry): Promise<Uint8Array> {
    const end = entry.offset + entry.length;
    return await this.#verified(input, async (read) => {
      const record = await read(entry.offset - RECORD_HEADER_BYTES, end, input.bytes, "records");
      if (compareRecord(record, entry) === "damaged")
        throw new SegmentError("a record differs from what was written");
      return record.subarray(RECORD_HEADER_BYTES);
    });
  }

  /** Returns the bodies of the batches in the frame whose record's header begins at `at`. */
  async bodies(
    input: Input,
    at: number,
    frame: Frame,
    batches: ArchivedBatch[],
  ): Promise<Uint8Array[]> {
    const key = `${input.id} ${at}`;
    const known = this.#frames.get(key);
    if (known !== undefined) return known;
    const end = at + RECORD_HEADER_BYTES + frame.length;
    const bodies = await this.#verified(input, async (read) => {
      const record = await read(at, end, end, "records");
      if (readHeader(record).kind !== "frame") throw new SegmentError("a frame is missing");
      return parsed(() => unpackFrame(recordBody(record), frame, batches));
    });
    discarded(frame.bytes);
    this.#frames.set(key, bodies, { size: Math.max(1, frame.bytes) });
    return bodies;
  }

  /** Reads the footer; the records that it lists fill the archive. */
  async footer(input: Input): Promise<Footer> {
    const { id, bytes } = input;
    return await this.#verified(input, async (read) => {
      const tail = await read(Math.max(0, bytes - TAIL_BYTES), bytes, bytes, "footer");
      const needed = footerBytes(tail);
      if (needed > bytes) throw new SegmentError("the footer is longer than the archive");
      const whole =
        needed > tail.length ? await read(bytes - needed, bytes, bytes, "footer") : tail;
      const footer = parsed(() => readFooter(whole));
      if (footer.id !== id) throw new SegmentError("the id of the archive differs from its key");
      checkLength(footer, bytes, needed);
      return footer;
    });
  }

  /** Reads once more if that fails: bytes may have been damaged in transit. */
  async #verified<T>(input: Input, take: (read: Read) => Promise<T>): Promise<T> {
    const key = archiveKey(input);
    try {
      return await take(async (...range) => await this.#read(input, ...range));
    } catch (error) {
      if (!isDamage(error)) throw error;
    }
    try {
      return await take(async (start, end) => await this.#load(key, start, end));
    } catch (error) {
      throw isDamage(error) ? lostOf(input, error) : error;
    }
  }

  async #read(
    input: Input,
    start: number,
    end: number,
    last: number,
    part: Part,
  ): Promise<Uint8Array> {
    const key = archiveKey(input);
    for (const which of [part, "records"]) {
      const window = this.#windows.get(`${which} ${key}`);
      if (window === undefined || start < window.start) continue;
      const bytes = window.bytes.subarray(start - window.start, end - window.start);
      if (bytes.length === end - start) return bytes;
    }
    const isPart = part !== "records";
    const ahead = isPart ? Math.min(this.#windowBytes, INDEX_WINDOW_BYTES) : this.#windowBytes;
    const to = Math.max(end, Math.min(isPart ? last : input.bytes, start + ahead));
    const bytes = await this.#load(key, start, to);
    this.#windows.set(`${part} ${key}`, { start, bytes });
    return bytes.subarray(0, end - start);
  }

  async #load(key: string, start: number, end: number): Promise<Uint8Array> {
    const bytes = await this.#objects.read(key, start, end, this.#signal);
    this.bytesRead += bytes.length;
    return bytes;
  }
}

type Read = (start: number, end: number, last: number, part: Part) => Promise<Uint8Array>;

/** Returns the error for an input that is not what was written. */
export function lostOf(input: ArchiveName, cause: unknown): Lost {
  const key = archiveKey(input);
  return Lost.from(cause, key) ?? new Lost("damaged", key, cause);
}

/** Returns false for errors of a store that is unavailable. A RangeError is of a place that no object has. */
function isDamage(error: unknown): boolean {
  return isLost(error) || error instanceof RangeError;
}

/** Throws SegmentError for bytes whose checksum is right, but whose content makes no sense. */
export function parsed<T>(parse: () => T): T {
  try {
    return parse();
  } catch (cause) {
    if (cause instanceof SegmentError) throw cause;
    throw new SegmentError("a record cannot be read", { cause });
  }
}

/** Returns the error for an input that says two different things. */
export function contradiction(input: Input, message: string): Lost {
  return lostOf(input, new SegmentError(message));
}
