import { type InflightBytes } from "../ingest/inflight-bytes.ts";
import { CHUNK_BYTES_MAX, type PartWriter } from "./upload.ts";

const BUFFERS_KEPT_MAX = 32;
// What comes slower than this is not held back: many slow uploads would hold all that may be held.
const HELD_MS_MAX = 2000;

/** Buffers of a chunk's size; the system gives a new one its memory only as it fills. */
export class ChunkBuffers {
  readonly #free: Uint8Array[] = [];

  take(): Uint8Array {
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(CHUNK_BYTES_MAX);
  }

  give(buffer: Uint8Array): void {
    if (this.#free.length < BUFFERS_KEPT_MAX) this.#free.push(buffer);
  }
}

type Held = { writer: PartWriter; start: number; bytes: number };

/**
 * The files of one form that are held back, up to the size of a chunk together: whether a file is stored already is known only after its
 * last byte, and small ones share a segment with their rows. Counted as what is held for a client that waits.
 */
export class HeldFiles implements Disposable {
  readonly #inflight: InflightBytes;
  readonly #buffers: ChunkBuffers;
  readonly #projectId: number;
  /** one behind the other in the buffer; the last one may grow */
  #files: Held[] = [];
  #buffer: Uint8Array | undefined;
  #bytes = 0;
  #isLate = false;
  readonly #timer: NodeJS.Timeout;

  constructor(inflight: InflightBytes, buffers: ChunkBuffers, projectId: number) {
    this.#inflight = inflight;
    this.#buffers = buffers;
    this.#projectId = projectId;
    this.#timer = setTimeout(() => {
      this.#isLate = true;
      this.write();
    }, HELD_MS_MAX);
  }

  has(writer: PartWriter): boolean {
    return this.#files.some((file) => file.writer === writer);
  }

  begin(writer: PartWriter): void {
    if (!this.#isLate) this.#files.push({ writer, start: this.#bytes, bytes: 0 });
  }

  /** Takes more of the file that began last. False when that one is too large, and is held no more. */
  add(data: Uint8Array): boolean {
    if (this.#bytes + data.length > CHUNK_BYTES_MAX) this.#writeOthers();
    const file = this.#files.at(-1);
    if (file === undefined || this.#bytes + data.length > CHUNK_BYTES_MAX) {
      this.write();
      return false;
    }
    this.#buffer ??= this.#buffers.take();
    this.#buffer.set(data, this.#bytes);
    file.bytes += data.length;
    this.#count(data.length);
    return true;
  }

  /** Forgets the file that began last. */
  drop(): void {
    this.#count(-(this.#files.pop()?.bytes ?? 0));
  }

  /** Lets all of them go into segments. */
  write(): void {
    for (const file of this.#files.splice(0)) this.#writeOne(file);
    this.#empty();
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#empty();
  }

  #empty(): void {
    this.#files = [];
    this.#count(-this.#bytes);
    if (this.#buffer !== undefined) this.#buffers.give(this.#buffer);
    this.#buffer = undefined;
  }

  #writeOthers(): void {
    const last = this.#files.pop();
    for (const file of this.#files.splice(0)) this.#writeOne(file);
    if (last === undefined) return;
    this.#buffer?.copyWithin(0, last.start, last.start + last.bytes);
    this.#count(last.bytes - this.#bytes);
    this.#files.push({ ...last, start: 0 });
  }

  #writeOne({ writer, start, bytes }: Held): void {
    if (bytes > 0 && this.#buffer !== undefined)
      writer.write(this.#buffer.subarray(start, start + bytes));
    writer.end();
  }

  #count(bytes: number): void {
    this.#bytes += bytes;
    if (bytes > 0) this.#inflight.add(this.#projectId, bytes);
    if (bytes < 0) this.#inflight.release(this.#projectId, -bytes);
  }
}
