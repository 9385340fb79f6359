import { ObjectDamaged, ObjectMissing, ReadBroken } from "./objects.ts";
import { type Deadline } from "./s3-deadline.ts";

/**
 * Returns how many bytes of the range the answer has: fewer if the object is shorter. Throws if the
 * answer is for another range.
 */
export function rangeBytes(contentRange: string | undefined, start: number, end: number): number {
  const [, first, last, total] = contentRange?.match(/^bytes (\d+)-(\d+)\/(\d+|\*)$/) ?? [];
  const answered = Number(last) + 1;
  const isAsked = answered === end || (answered < end && answered === Number(total));
  if (Number(first) !== start || !isAsked)
    throw new Error(`the answer is not the range ${start} to ${end}`);
  return answered - start;
}

/** Collects the body of an answer as it arrives. */
export class RangeBody {
  readonly #bytes: Uint8Array;
  #filled = 0;
  #available: number;

  constructor(length: number) {
    this.#bytes = new Uint8Array(length);
    this.#available = length;
  }

  get received(): Uint8Array {
    return this.#bytes.subarray(0, this.#filled);
  }

  /** True if the object is shorter than the range. */
  get isShort(): boolean {
    return this.#available < this.#bytes.length;
  }

  /** Reads exactly `available` bytes. Each chunk extends the deadline. */
  async fill(
    chunks: ReadableStream<Uint8Array> | undefined,
    available: number,
    deadline: Deadline,
  ): Promise<void> {
    this.#available = available;
    for await (const chunk of chunks ?? []) {
      if (this.#filled + chunk.length > available) {
        // Discard the bytes: the answer does not belong to this request.
        this.#filled = 0;
        throw new Error(`more than ${available} bytes arrived`);
      }
      this.#bytes.set(chunk, this.#filled);
      this.#filled += chunk.length;
      deadline.extend();
    }
    if (this.#filled < available) throw new Error(`${this.#filled} of ${available} bytes arrived`);
  }

  /** Returns the error for a read that failed with `cause`; it keeps the bytes that had arrived. */
  broken(cause: unknown): unknown {
    if (this.#filled === 0 || cause instanceof ObjectMissing || cause instanceof ObjectDamaged)
      return cause;
    const message = cause instanceof Error ? cause.message : String(cause);
    return new ReadBroken(message, this.received, { cause });
  }
}
