/**
 * Aborts the requests that run under it: with the caller's signal, after `ms`, or when it is
 * disposed.
 */
export class Deadline implements Disposable {
  readonly signal: AbortSignal;
  readonly #what: string;
  readonly #controller = new AbortController();
  readonly #timer: NodeJS.Timeout;

  constructor(what: string, ms: number, outer?: AbortSignal) {
    this.#what = what;
    this.signal = outer
      ? AbortSignal.any([outer, this.#controller.signal])
      : this.#controller.signal;
    this.#timer = setTimeout(() => {
      this.#controller.abort(new Error(`s3: ${what}: no answer within ${ms} ms`));
    }, ms);
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

  /** Restarts the time limit. */
  extend(): void {
    this.#timer.refresh();
  }

  /** Removes the time limit; the caller's signal still aborts. */
  lift(): void {
    clearTimeout(this.#timer);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#controller.abort();
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
