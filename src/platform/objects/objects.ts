/**
 * Object store of segments and builds. In a driver one call is one attempt, except `upload`.
 * `openObjects` wraps the driver in RetryingObjects, which retries reads; retries and deadlines of
 * everything else belong to the caller, who knows what is at stake. Keys are relative paths of
 * `[A-Za-z0-9._-]` parts joined by `/`.
 */
export interface ObjectStore extends AsyncDisposable {
  /** What the store is, for logs and health: `files` or `s3`. */
  readonly name: string;
  /** True where a PUT costs nothing, so that small objects are no waste. */
  readonly freePuts: boolean;
  /**
   * Creates the object; resolved means durable. The same bytes again under the same key succeed, so a PUT whose answer was lost
   * can be repeated. Other bytes under a taken key throw ObjectConflict; they never replace what is there.
   */
  put(key: string, body: Uint8Array, signal?: AbortSignal): Promise<void>;
  /**
   * Reads the bytes from `start` up to but without `end`. Throws ObjectMissing or ObjectDamaged if
   * they are lost, ReadBroken if only some of them arrived, and another Error while the store is
   * unavailable.
   */
  read(key: string, start: number, end: number, signal?: AbortSignal): Promise<Uint8Array>;
  /**
   * Creates the object from a stream of any length, under a key that nothing was stored under before; resolved means durable. Tries
   * again by itself what may succeed then. What it has sent when it rejects is no object, nor any trace of one as far as the store
   * could still be reached.
   */
  upload(key: string, chunks: AsyncIterable<Uint8Array>, signal?: AbortSignal): Promise<void>;
  /** The bytes from `start` up to but without `end` for a Response, of any length in little memory; throws as `read` does. A failure half-way breaks it off. */
  body(
    key: string,
    start: number,
    end: number,
  ): Promise<Blob | ReadableStream<Uint8Array<ArrayBuffer>>>;
  /** Removes the object, also what an upload of it has left or still sends; it is fine when nothing is there. */
  remove(key: string): Promise<void>;
  /** A URL under which anybody can GET the object for so many seconds, as a file of that name. Only where the store can be reached by others. */
  link?:
    | ((key: string, options: { seconds: number; filename: string }) => Promise<string>)
    | undefined;
  /** Every object under `prefix` in key order, only those beyond the key `after` if it is given, a page in memory at a time. */
  list(prefix: string, after?: string): AsyncIterable<{ key: string; bytes: number }>;
  /** Rejects if the store does not answer, or not as it should. Changes nothing. */
  ping(signal?: AbortSignal): Promise<void>;
  /**
   * Writes a small object that other calls never see; rejects if the store does not accept it. May
   * cost as much as a PUT.
   */
  probe(signal?: AbortSignal): Promise<void>;
}

export class ObjectConflict extends Error {
  override readonly name = "ObjectConflict";
}

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
