import { type InflightBytes } from "../log/inflight-bytes.ts";
import { release } from "../platform/gc.ts";
import { CHUNK_BYTES_MAX, type PartWriter } from "./upload.ts";

// Pieces held at most: with many small ones their overhead would exceed their bytes.
const PIECES_MAX = 256;
// Time to hold files at most: many slow uploads would use up the memory for held files.
const HELD_MS_MAX = 2000;

type Writer = Pick<PartWriter, "write" | "end">;
type Held = { writer: Writer; pieces: Uint8Array[]; bytes: number };

/**
 * Buffers the files of one form, up to the size of a chunk in total: only after its last byte is
 * known whether a file is already stored, and small files share a segment with their rows. The
 * bytes count as in flight.
 */
export class HeldFiles implements Disposable {
  readonly #inflight: InflightBytes;
  readonly #projectId: number;
  /** Files held; only the last one may still grow. */
  #files: Held[] = [];
  /** Chunks of the body in which the held bytes are. */
  readonly #spent: Uint8Array[] = [];
  #bytes = 0;
  #pieces = 0;
  #isLate = false;
  /** Error of the commit log, which did not take some bytes of the upload. */
  #failure: { error: unknown } | undefined;
  readonly #timer: NodeJS.Timeout;

  constructor(inflight: InflightBytes, projectId: number) {
    this.#inflight = inflight;
    this.#projectId = projectId;
    this.#timer = setTimeout(() => {
      this.#isLate = true;
      // No caller waits here: `#check` throws the failure when the upload continues.
      this.#writeAll(this.#files.splice(0));
    }, HELD_MS_MAX);
  }

  /** Returns whether the file is still held. Throws if held files could not be written. */
  has(writer: Writer): boolean {
    this.#check();
    return this.#files.some((file) => file.writer === writer);
  }

  begin(writer: Writer): void {
    if (!this.#isLate) this.#files.push({ writer, pieces: [], bytes: 0 });
  }

  /**
   * Adds bytes to the current file, without a copy. Returns false if it has become too large and is
   * no longer held.
   */
  add(data: Uint8Array): boolean {
    if (!this.#fits(data)) this.#writeOthers();
    this.#check();
    const file = this.#files.at(-1);
    if (file === undefined || !this.#fits(data)) {
      this.write();
      return false;
    }
    file.pieces.push(data);
    file.bytes += data.length;
    this.#pieces++;
    this.#bytes += data.length;
    this.#inflight.add(this.#projectId, data.length);
    return true;
  }

  /** Drops the current file. */
  drop(): void {
    const file = this.#files.pop();
    if (file !== undefined) this.#forget(file);
    this.#releaseSpent();
  }

  /** Releases a chunk of the body as soon as no file is held any more. */
  release(chunk: Uint8Array): void {
    this.#spent.push(chunk);
    this.#releaseSpent();
  }

  /** Writes all held files to segments. Throws the error of the commit log. */
  write(): void {
    this.#writeAll(this.#files.splice(0));
    this.#check();
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    for (const file of this.#files.splice(0)) this.#forget(file);
    this.#releaseSpent();
  }

  #fits(data: Uint8Array): boolean {
    return this.#bytes + data.length <= CHUNK_BYTES_MAX && this.#pieces < PIECES_MAX;
  }

  #writeOthers(): void {
    this.#writeAll(this.#files.splice(0, this.#files.length - 1));
  }

  /** Writes the files and releases their in-flight bytes, also if the commit log refuses them. */
  #writeAll(files: Held[]): void {
    try {
      for (const { writer, pieces } of files) {
        for (const piece of pieces) writer.write(piece);
        writer.end();
      }
    } catch (error) {
      this.#failure = { error };
    } finally {
      for (const file of files) this.#forget(file);
      this.#releaseSpent();
    }
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  #forget({ pieces, bytes }: Held): void {
    this.#pieces -= pieces.length;
    this.#bytes -= bytes;
    if (bytes > 0) this.#inflight.release(this.#projectId, bytes);
  }

  #releaseSpent(): void {
    if (this.#files.length === 0) for (const chunk of this.#spent.splice(0)) release(chunk);
  }
}
