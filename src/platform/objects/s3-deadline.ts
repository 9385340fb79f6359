/** Ends what runs under it with the caller's signal, when `ms` have passed, or when it goes out of scope. */
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

  /** Runs one request; whatever it throws becomes an error of ours. */
  async run<T>(request: (options: { abortSignal: AbortSignal }) => Promise<T>): Promise<T> {
    try {
      this.signal.throwIfAborted();
      return await request({ abortSignal: this.signal });
    } catch (error) {
      this.signal.throwIfAborted();
      throw new S3Failure(this.#what, error);
    }
  }

  extend(): void {
    this.#timer.refresh();
  }

  /** From now on only the caller's signal ends what was begun. */
  lift(): void {
    clearTimeout(this.#timer);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#controller.abort();
  }
}

/** One request under a deadline of its own. */
export async function within<T>(
  what: string,
  ms: number,
  outer: AbortSignal | undefined,
  request: (options: { abortSignal: AbortSignal }) => Promise<T>,
): Promise<T> {
  using deadline = new Deadline(what, ms, outer);
  return await deadline.run(request);
}

/** What the SDK throws holds the signed request, so only its code and message go on, and nothing of it into a log. */
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
