import { ObjectConflict, type ObjectStore } from "../../src/platform/objects/objects.ts";

/** Script for one PUT; `store` performs it in the real store. */
export type PutScript = (
  put: { key: string; body: Uint8Array; signal: AbortSignal | undefined },
  store: (body?: Uint8Array) => Promise<void>,
  objects: ObjectStore,
) => Promise<void>;

export const succeeds: PutScript = async (_put, store) => await store();

export const fails: PutScript = async () => {
  throw new Error("the store failed");
};

/** Stores the object, but loses the answer. */
export const storesThenFails: PutScript = async (_put, store) => {
  await store();
  throw new Error("the answer was lost");
};

/** Finds other bytes under the key. */
export const findsOtherBytes: PutScript = async (_put, store) => {
  await store(new Uint8Array([1, 2, 3])).catch((error: unknown) => {
    if (!(error instanceof ObjectConflict)) throw error;
  });
  await store();
};

export const diskFull: PutScript = async () => {
  throw Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC" });
};

/** Waits for `gate` and ignores the caller's signal. */
export const waitsFor =
  (gate: Promise<unknown>, then: PutScript = succeeds): PutScript =>
  async (put, store, objects) => {
    await gate;
    await then(put, store, objects);
  };

/** Wraps a real store with faults: PUTs run the scripts of `next` in order, then `otherwise`. */
export class FaultyObjects implements ObjectStore {
  readonly next: PutScript[] = [];
  otherwise: PutScript = succeeds;
  /** Called before a read, which fails if this throws. */
  beforeRead: (key: string) => void = () => undefined;
  /** Called and awaited before each read. */
  waitBeforeRead: (key: string) => Promise<void> = async () => undefined;
  /** Changes the bytes that a read returns. */
  changeRead: (bytes: Uint8Array, key: string) => Uint8Array = (bytes) => bytes;
  beforePing: () => void = () => undefined;
  /** All PUTs that were begun. */
  readonly puts: { key: string; body: Uint8Array }[] = [];
  #inner: ObjectStore | undefined;

  /** Function for the option `wrapObjects`. */
  readonly wrap = (inner: ObjectStore): ObjectStore => {
    this.#inner = inner;
    return this;
  };

  get inner(): ObjectStore {
    if (this.#inner === undefined) throw new Error("nothing is wrapped yet");
    return this.#inner;
  }

  get name(): string {
    return this.inner.name;
  }

  get freePuts(): boolean {
    return this.inner.freePuts;
  }

  async put(key: string, body: Uint8Array, signal?: AbortSignal): Promise<void> {
    this.puts.push({ key, body });
    const script = this.next.shift() ?? this.otherwise;
    const store = async (bytes = body) => await this.inner.put(key, bytes, signal);
    await script({ key, body, signal }, store, this.inner);
  }

  async read(key: string, start: number, end: number, signal?: AbortSignal): Promise<Uint8Array> {
    this.beforeRead(key);
    await this.waitBeforeRead(key);
    return this.changeRead(await this.inner.read(key, start, end, signal), key);
  }

  async upload(
    key: string,
    chunks: AsyncIterable<Uint8Array>,
    signal?: AbortSignal,
  ): Promise<void> {
    await this.inner.upload(key, chunks, signal);
  }

  async body(key: string, start: number, end: number) {
    this.beforeRead(key);
    return await this.inner.body(key, start, end);
  }

  async remove(key: string): Promise<void> {
    await this.inner.remove(key);
  }

  list(prefix: string, after?: string): AsyncIterable<{ key: string; bytes: number }> {
    return this.inner.list(prefix, after);
  }

  async ping(signal?: AbortSignal): Promise<void> {
    this.beforePing();
    await this.inner.ping(signal);
  }

  /** Fails like PUTs, without being counted or scripted as one. */
  async probe(signal?: AbortSignal): Promise<void> {
    const store = async () => await this.inner.probe(signal);
    await this.otherwise({ key: "probe", body: new Uint8Array(1), signal }, store, this.inner);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.inner[Symbol.asyncDispose]();
  }
}
