/**
 * Object store of segments and builds. In a driver one call is one attempt, except `upload`.
 * `openObjects` wraps the driver in RetryingObjects, which retries reads; retries and deadlines of
 * everything else belong to the caller, who knows what is at stake. Keys are relative paths of
 * `[A-Za-z0-9._-]` parts joined by `/`.
 */
export interface ObjectStore extends AsyncDisposable {
  /** Kind of store, for logs and health checks: `files` or `s3`. */
  readonly name: string;
  /** True if PUTs cost nothing, so that small objects are no waste. */
  readonly freePuts: boolean;
  /**
   * Creates the object, durably once this resolves. Succeeds if the key has the same bytes already,
   * so a PUT whose answer was lost can be repeated. Throws ObjectConflict if the key has other
   * bytes, which stay.
   */
  put(key: string, body: Uint8Array, signal?: AbortSignal): Promise<void>;
  /**
   * Reads the bytes from `start` up to but without `end`. Throws ObjectMissing or ObjectDamaged if
   * they are lost, ReadBroken if only some of them arrived, and another Error while the store is
   * unavailable.
   */
  read(key: string, start: number, end: number, signal?: AbortSignal): Promise<Uint8Array>;
  /**
   * Creates the object from a stream of any length under a key that was never used, durably once
   * this resolves. Retries failed requests by itself. If it rejects, there is no object, and
   * partial data is removed as far as the store can still be reached.
   */
  upload(key: string, chunks: AsyncIterable<Uint8Array>, signal?: AbortSignal): Promise<void>;
  /**
   * Returns the bytes from `start` up to but without `end` as the body of a Response, of any length
   * in little memory. Throws as `read` does; a later failure breaks the body off.
   */
  body(
    key: string,
    start: number,
    end: number,
  ): Promise<Blob | ReadableStream<Uint8Array<ArrayBuffer>>>;
  /**
   * Removes the object, and what an upload of it has left or is still sending. Succeeds if there is
   * nothing to remove.
   */
  remove(key: string): Promise<void>;
  /**
   * Returns a URL at which anybody can GET the object for that many seconds, as a file of that
   * name. Undefined if clients cannot reach the store.
   */
  link?:
    | ((key: string, options: { seconds: number; filename: string }) => Promise<string>)
    | undefined;
  /**
   * Lists the objects under `prefix` in key order, or only those beyond the key `after`. Holds a
   * page in memory at a time.
   */
  list(prefix: string, after?: string): AsyncIterable<{ key: string; bytes: number }>;
  /** Rejects if the store does not answer, or answers with an error. Changes nothing. */
  ping(signal?: AbortSignal): Promise<void>;
  /**
   * Writes a small object that other calls never see; rejects if the store does not accept it. May
   * cost as much as a PUT.
   */
  probe(signal?: AbortSignal): Promise<void>;
}

/** Thrown if other bytes are stored under the key. */
export class ObjectConflict extends Error {
  override readonly name = "ObjectConflict";
}

/** Thrown if the store says that there is no such object. */
export class ObjectMissing extends Error {
  override readonly name = "ObjectMissing";
}

/**
 * Thrown if the object is shorter than the range, or its disk cannot read it. `bytes` is the
 * readable beginning of the range.
 */
export class ObjectDamaged extends Error {
  override readonly name = "ObjectDamaged";
  readonly bytes: Uint8Array;

  constructor(message: string, bytes: Uint8Array, options?: ErrorOptions) {
    super(message, options);
    this.bytes = bytes;
  }
}

/** Thrown if the answer was cut off; `bytes` is the beginning of the range that had arrived. */
export class ReadBroken extends Error {
  override readonly name = "ReadBroken";
  readonly bytes: Uint8Array;

  constructor(message: string, bytes: Uint8Array, options?: ErrorOptions) {
    super(message, options);
    this.bytes = bytes;
  }
}
