import { ObjectConflict, type ObjectStore } from "../../src/platform/objects/objects.ts";
import { WrappedObjects } from "../../src/platform/objects/wrapped-objects.ts";

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

/** Faults of the stores that `wrap` returns: PUTs run the scripts of `next` in order, then `otherwise`. */
export class FaultyObjects {
  readonly next: PutScript[] = [];
  otherwise: PutScript = succeeds;
  /** Called and awaited before each read, which fails if this does. */
  beforeRead: (key: string) => void | Promise<void> = () => undefined;
  /** Changes the bytes that a read returns. */
  changeRead: (bytes: Uint8Array, key: string) => Uint8Array = (bytes) => bytes;
  beforePing: () => void | Promise<void> = () => undefined;
  /** All PUTs that were begun. */
  readonly puts: { key: string; body: Uint8Array }[] = [];

  /** Function for the option `wrapObjects`. */
  readonly wrap = (inner: ObjectStore): ObjectStore => new Faulty(inner, this);
}

class Faulty extends WrappedObjects {
  readonly #faults: FaultyObjects;

  constructor(inner: ObjectStore, faults: FaultyObjects) {
    super(inner);
    this.#faults = faults;
  }

  override async put(key: string, body: Uint8Array, signal?: AbortSignal): Promise<void> {
    const { puts, next, otherwise } = this.#faults;
    puts.push({ key, body });
    const script = next.shift() ?? otherwise;
    const store = async (bytes = body) => await super.put(key, bytes, signal);
    await script({ key, body, signal }, store, this.inner);
  }

  override async read(key: string, start: number, end: number, signal?: AbortSignal) {
    await this.#faults.beforeRead(key);
    return this.#faults.changeRead(await super.read(key, start, end, signal), key);
  }

  override async body(key: string, start: number, end: number) {
    await this.#faults.beforeRead(key);
    return await super.body(key, start, end);
  }

  override async ping(signal?: AbortSignal): Promise<void> {
    await this.#faults.beforePing();
    await super.ping(signal);
  }

  /** Fails like PUTs, without being counted or scripted as one. */
  override async probe(signal?: AbortSignal): Promise<void> {
    const store = async () => await super.probe(signal);
    const put = { key: "probe", body: new Uint8Array(1), signal };
    await this.#faults.otherwise(put, store, this.inner);
  }
}
