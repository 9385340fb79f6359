import { TimeLimit } from "../time-limit.ts";

/**
 * Aborts the requests that run under it: with the caller's signal, after `ms`, or when it is
 * disposed.
 */
export class Deadline extends TimeLimit {
  readonly #what: string;

  constructor(what: string, ms: number, outer?: AbortSignal) {
    super(ms, () => new Error(`s3: ${what}: no answer within ${ms} ms`), outer);
    this.#what = what;
  }

  /** Runs one request. Throws the reason of an abort, or else S3Failure. */
  async run<T>(request: (options: { abortSignal: AbortSignal }) => Promise<T>): Promise<T> {
    try {
      this.signal.throwIfAborted();
      return await request({ abortSignal: this.signal });
    } catch (error) {
      this.signal.throwIfAborted();
      throw new S3Failure(this.#what, error);
    }
  }

  override [Symbol.dispose](): void {
    super[Symbol.dispose]();
    this.abort();
  }
}

/** Runs one request under a deadline of its own. */
export async function within<T>(
  what: string,
  ms: number,
  outer: AbortSignal | undefined,
  request: (options: { abortSignal: AbortSignal }) => Promise<T>,
): Promise<T> {
  using deadline = new Deadline(what, ms, outer);
  return await deadline.run(request);
}

/**
 * Failed request, with only the code and message of the SDK's error: that one holds the signed
 * request, which must not be logged.
 */
export class S3Failure extends Error {
  override readonly name = "S3Failure";
  readonly status: number | undefined;
  readonly code: string;

  constructor(what: string, thrown: unknown) {
    const { name, message } = thrown instanceof Error ? thrown : new Error(String(thrown));
    const status = statusOf(thrown);
    const [reason = ""] = message.split("\n");
    super(`s3: ${what}: ${status === undefined ? reason : `${status} ${name}: ${reason}`}`);
    this.status = status;
    this.code = name;
  }
}

function statusOf(thrown: unknown): number | undefined {
  if (!(thrown instanceof Error) || !("$metadata" in thrown)) return undefined;
  const { $metadata } = thrown;
  return typeof $metadata === "object" &&
    $metadata !== null &&
    "httpStatusCode" in $metadata &&
    typeof $metadata.httpStatusCode === "number"
    ? $metadata.httpStatusCode
    : undefined;
}
