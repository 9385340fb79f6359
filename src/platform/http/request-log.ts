import { stdSerializers } from "pino";

import { type Log } from "../logger.ts";

const LINES_PER_S = 20;
const TELL_MS = 10_000;
const PATH_LENGTH_MAX = 200;
const ERROR_TEXT_LENGTH_MAX = 4000;
export type RequestLine = {
  id: string;
  method: string;
  path: string;
  status: number;
  ms: number;
  address: string;
};

/**
 * Logs requests and faults. Limits lines that anybody can cause, so that a flood cannot fill the
 * disk.
 */
export class RequestLog {
  readonly #log: Log;
  readonly #requests: LineLimit;
  readonly #faults: LineLimit;

  constructor(log: Log, tellMs = TELL_MS) {
    this.#log = log;
    this.#requests = new LineLimit(tellMs, (lines) =>
      log.info({ lines }, "lines of requests left out"),
    );
    this.#faults = new LineLimit(tellMs, (lines) =>
      log.error({ lines }, "lines of faults left out"),
    );
  }

  /** Logs an answered request; without a limit if it had a server key and succeeded. */
  request(
    makeLine: () => RequestLine,
    { isKeyed, status }: { isKeyed: boolean; status: number },
  ): void {
    if (!this.#log.isLevelEnabled("info")) return;
    if (!(isKeyed && status < 400) && !this.#requests.take()) return;
    const line = makeLine();
    this.#log.info({ ...line, path: shortened(line.path, PATH_LENGTH_MAX) }, "request");
  }

  /** Logs an error; `path` has no query, which may contain a token. */
  fault(error: unknown, { method }: Request, path: string): void {
    if (!this.#faults.take()) return;
    const err = error instanceof Error ? shortenedError(error) : error;
    this.#log.error({ err, method, path: shortened(path, PATH_LENGTH_MAX) }, "request failed");
  }
}

/** Rate limiter for log lines; reports later how many it dropped. */
class LineLimit {
  readonly #tellMs: number;
  readonly #tell: (lines: number) => void;
  #left = LINES_PER_S;
  #second = 0;
  #leftOut = 0;

  constructor(tellMs: number, tell: (lines: number) => void) {
    this.#tellMs = tellMs;
    this.#tell = tell;
  }

  take(): boolean {
    const second = Math.floor(performance.now() / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#left = LINES_PER_S;
    }
    if (this.#left-- > 0) return true;
    if (this.#leftOut++ === 0) setTimeout(() => this.#report(), this.#tellMs).unref();
    return false;
  }

  #report(): void {
    this.#tell(this.#leftOut);
    this.#leftOut = 0;
  }
}

function shortened(text: string, lengthMax: number): string {
  return text.length <= lengthMax ? text : `${text.slice(0, lengthMax)}…`;
}

/**
 * Returns the error as the logger would write it, with long texts cut: they may quote what a client
 * sent. Short errors are returned unchanged.
 */
function shortenedError(error: Error): object {
  const { message, stack = "" } = error;
  if (message.length + stack.length <= ERROR_TEXT_LENGTH_MAX) return error;
  const entries = Object.entries(stdSerializers.err(error));
  return Object.fromEntries(
    entries.map(([name, value]: [string, unknown]) => [
      name,
      typeof value === "string" ? shortened(value, ERROR_TEXT_LENGTH_MAX) : value,
    ]),
  );
}
