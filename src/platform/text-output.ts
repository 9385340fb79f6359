import { fstatSync, write, writeSync } from "node:fs";

import { doneWithin } from "./time-limit.ts";

const WAITING_CHARACTERS_MAX = 8 * 2 ** 20;
// Retry delay for a full pipe that another program made non-blocking (EAGAIN).
const RETRY_MS = 100;

/**
 * Writes text to a file descriptor without ever blocking the process: not for a reader that is gone
 * or does not read, and not for a full disk. Text that cannot be written is lost. A logging
 * library's own stream would retry forever at exit. Writes to files are synchronous: an unexpected
 * exit would lose text that another thread has yet to write.
 */
export class TextOutput {
  readonly #fd: number;
  readonly #isFile: boolean;
  #waiting: string[] = [];
  #characters = 0;
  #written = Promise.withResolvers<void>();
  #isWriting = false;
  #isClosed = false;

  constructor(fd: number) {
    this.#fd = fd;
    this.#isFile = isFile(fd);
    process.on("exit", () => this.#writeRest());
  }

  write(text: string): void {
    if (this.#isClosed || this.#characters > WAITING_CHARACTERS_MAX) return;
    if (this.#isFile) {
      this.#writeNow(text);
      return;
    }
    this.#waiting.push(text);
    this.#characters += text.length;
    if (!this.#isWriting) this.#writeOn();
  }

  /** Resolves when everything is written or `ms` have passed; ignores later writes. */
  async close(ms: number): Promise<void> {
    if (this.#isWriting) await doneWithin(ms, this.#written.promise);
    this.#isClosed = true;
  }

  #writeOn(): void {
    const chunk = Buffer.from(this.#take());
    this.#isWriting = chunk.length > 0;
    if (this.#isWriting) this.#writeChunk(chunk);
    else {
      this.#written.resolve();
      this.#written = Promise.withResolvers();
    }
  }

  #writeChunk(chunk: Buffer): void {
    write(this.#fd, chunk, (error, bytes) => {
      if (error?.code === "EAGAIN") setTimeout(() => this.#writeChunk(chunk), RETRY_MS);
      else if (error !== null || bytes === chunk.length) this.#writeOn();
      else this.#writeChunk(chunk.subarray(bytes));
    });
  }

  /** Writes what is left at exit: the last lines say why a process crashed. */
  #writeRest(): void {
    const rest = this.#isClosed ? "" : this.#take();
    if (rest !== "") this.#writeNow(rest);
  }

  #writeNow(text: string): void {
    try {
      for (let rest = Buffer.from(text); rest.length > 0;)
        rest = rest.subarray(writeSync(this.#fd, rest));
    } catch {
      // The reader is gone, or the disk is full.
    }
  }

  #take(): string {
    const text = this.#waiting.join("");
    this.#waiting = [];
    this.#characters = 0;
    return text;
  }
}

function isFile(fd: number): boolean {
  try {
    return fstatSync(fd).isFile();
  } catch {
    return false;
  }
}

export const STDOUT = new TextOutput(1);
export const STDERR = new TextOutput(2);
