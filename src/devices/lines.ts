import { AppError } from "../platform/errors.ts";

/** More than any device takes, however it is escaped. */
export const LINE_BYTES_MAX = 2 ** 20;

const LINE_END = 0x0a;

/** The lines of a text in UTF-8, or what is wrong with one. No more than a line and a chunk is held, whatever comes. */
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

/** The line that is being read. Of one that is too long only the length is kept. */
class OpenLine {
  // This one drops a byte order mark; the next ones, for the lines after the first, do not.
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
