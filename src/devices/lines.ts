import { AppError } from "../platform/errors.ts";

/** Limit of a line, above the size of any valid device however it is escaped. */
export const LINE_BYTES_MAX = 2 ** 20;

const LINE_END = 0x0a;

/**
 * Splits UTF-8 text into lines, and yields an error in place of a line that is malformed. Holds at
 * most one line and one chunk.
 */
export async function* linesOf(
  chunks: AsyncIterable<Uint8Array>,
): AsyncGenerator<string | AppError> {
  const line = new OpenLine();
  for await (const chunk of chunks) {
    let from = 0;
    for (let end = chunk.indexOf(LINE_END); end >= 0; end = chunk.indexOf(LINE_END, from)) {
      line.add(chunk.subarray(from, end));
      yield line.take();
      from = end + 1;
    }
    line.add(chunk.subarray(from));
  }
  if (!line.isEmpty) yield line.take();
}

/** The line that is being read. Keeps only the length of a line that is too long. */
class OpenLine {
  // Only the decoder of the first line drops a byte order mark.
  #decoder = new TextDecoder("utf-8", { fatal: true });
  #parts: Uint8Array[] = [];
  #bytes = 0;

  get isEmpty(): boolean {
    return this.#bytes === 0;
  }

  add(part: Uint8Array): void {
    this.#bytes += part.length;
    if (this.#bytes <= LINE_BYTES_MAX) this.#parts.push(part);
    else this.#parts = [];
  }

  take(): string | AppError {
    const decoder = this.#decoder;
    const [first, ...more] = this.#parts;
    const isTooLong = this.#bytes > LINE_BYTES_MAX;
    this.#decoder = LATER;
    this.#parts = [];
    this.#bytes = 0;
    if (isTooLong)
      return new AppError("invalid", `a line must have at most ${LINE_BYTES_MAX} bytes`);
    try {
      return decoder.decode(
        first === undefined || more.length === 0 ? first : Buffer.concat([first, ...more]),
      );
    } catch (cause) {
      return new AppError("invalid", "not UTF-8", { cause });
    }
  }
}

const LATER = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
