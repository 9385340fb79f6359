import { rejectOnAbort } from "./abort.ts";
import { ObjectConflict, type ObjectStore } from "./objects.ts";

// An answer holds for so long where requests cost something.
const HOLDS_MS = 1000;
const ASK_MS = 2000;
// A write that waits for so long while no other one is stored.
const STALLED_MS = 2000;
// A store that takes no writes is found by the clients' own; without any it is asked to take one so often.
const PROBE_EVERY_MS = 600_000;
// The same where what can be read does not tell, because reading is refused.
const PROBE_UNREADABLE_MS = 60_000;
// Clients' writes that fail for so long while nothing else is stored outweigh a probe that succeeds.
const FAILING_MS = 3000;
// Longer than the pause between two attempts of a commit: without any attempt the probe decides again.
const FAILED_RECENTLY_MS = 4500;

/**
 * A store that knows whether it takes writes: by the outcome of the clients' writes, which all pass through here, and where there are
 * none by a read of its own each second in which somebody asks, and seldom a write. Reading alone would not tell of a full store, or
 * of a key that may only read; writes cost money.
 */
export class StoreHealth implements ObjectStore {
  readonly #inner: ObjectStore;
  readonly link: ObjectStore["link"];
  /** When writes that are not settled began. */
  readonly #pending = new Set<{ sinceMs: number }>();
  #succeededMs = Number.NEGATIVE_INFINITY;
  #failedMs = Number.NEGATIVE_INFINITY;
  /** The first and the last of the clients' writes that failed since one succeeded. */
  #clients: { sinceMs: number; lastMs: number; error: unknown } | undefined;
  #answer: { atMs: number; error?: unknown } | undefined;
  #asking: Promise<void> | undefined;
  /** How reading failed while a write succeeded. */
  #unreadable: string | undefined;

  constructor(inner: ObjectStore) {
    this.#inner = inner;
    this.link = inner.link?.bind(inner);
  }

  get name(): string {
    return this.#inner.name;
  }

  get freePuts(): boolean {
    return this.#inner.freePuts;
  }

  /** Rejects, within two seconds, when the store takes no writes. */
  async check(): Promise<void> {
    const isFailing = this.#isFailing();
    if (!isFailing && this.#holds(this.#succeededMs)) return;
    const cause = this.#clientsFail();
    if (cause !== undefined) throw new Error("clients' writes fail", { cause });
    const isNews = isFailing && this.#answer?.error === undefined;
    if (isNews || !this.#holds(this.#answer?.atMs)) {
      this.#asking ??= this.#ask().finally(() => (this.#asking = undefined));
      await this.#asking;
    }
    if (this.#answer?.error !== undefined)
      throw new Error("the store takes no writes", { cause: this.#answer.error });
  }

  async put(key: string, body: Uint8Array, signal?: AbortSignal): Promise<void> {
    const write = { sinceMs: performance.now() };
    this.#pending.add(write);
    try {
      await this.#inner.put(key, body, signal);
      this.#succeeded();
    } catch (error) {
      // Neither does a taken key tell of the store, nor a writer that gave up.
      if (!(error instanceof ObjectConflict) && signal?.aborted !== true) this.#failed(error);
      throw error;
    } finally {
      this.#pending.delete(write);
    }
  }

  /** Only a success tells of the store: the stream itself may have failed. */
  async upload(
    key: string,
    chunks: AsyncIterable<Uint8Array>,
    signal?: AbortSignal,
  ): Promise<void> {
    await this.#inner.upload(key, chunks, signal);
    this.#succeeded();
  }

  async read(key: string, start: number, end: number, signal?: AbortSignal): Promise<Uint8Array> {
    return await this.#inner.read(key, start, end, signal);
  }

  async body(key: string, start: number, end: number) {
    return await this.#inner.body(key, start, end);
  }

  async remove(key: string): Promise<void> {
    await this.#inner.remove(key);
  }

  list(prefix: string, after?: string): AsyncIterable<{ key: string; bytes: number }> {
    return this.#inner.list(prefix, after);
  }

  async ping(signal?: AbortSignal): Promise<void> {
    await this.#inner.ping(signal);
  }

  async probe(signal?: AbortSignal): Promise<void> {
    await this.#inner.probe(signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#inner[Symbol.asyncDispose]();
  }

  #holds(atMs = Number.NEGATIVE_INFINITY): boolean {
    return performance.now() - atMs < (this.freePuts ? 0 : HOLDS_MS);
  }

  #succeeded(): void {
    this.#succeededMs = performance.now();
    this.#clients = undefined;
  }

  #failed(error: unknown): void {
    const nowMs = performance.now();
    this.#failedMs = nowMs;
    this.#clients = { sinceMs: this.#clients?.sinceMs ?? nowMs, lastMs: nowMs, error };
  }

  /** Whether the last write failed, or one waits long while no other is stored. */
  #isFailing(): boolean {
    const nowMs = performance.now();
    const isStalled = [...this.#pending].some(
      ({ sinceMs }) => nowMs - Math.max(sinceMs, this.#succeededMs) > STALLED_MS,
    );
    return isStalled || this.#failedMs > this.#succeededMs;
  }

  #clientsFail(): unknown {
    if (this.#clients === undefined) return undefined;
    const { sinceMs, lastMs, error } = this.#clients;
    const isLong = lastMs - sinceMs >= FAILING_MS;
    return isLong && performance.now() - lastMs < FAILED_RECENTLY_MS ? error : undefined;
  }

  /** Never rejects. */
  async #ask(): Promise<void> {
    const signal = AbortSignal.timeout(ASK_MS);
    try {
      if (this.#isFailing() || !(await this.#canRead(signal))) await this.#write(signal);
      this.#answer = { atMs: performance.now() };
    } catch (error) {
      this.#answer = { atMs: performance.now(), error };
    }
  }

  /** Whether a read tells enough. */
  async #canRead(signal: AbortSignal): Promise<boolean> {
    const sinceMs = performance.now() - this.#succeededMs;
    try {
      await Promise.race([this.#inner.ping(signal), rejectOnAbort(signal)]);
      this.#unreadable = undefined;
      return sinceMs < PROBE_EVERY_MS;
    } catch (error) {
      signal.throwIfAborted();
      const isKnown = this.#unreadable === String(error);
      this.#unreadable = String(error);
      return isKnown && sinceMs < PROBE_UNREADABLE_MS;
    }
  }

  async #write(signal: AbortSignal): Promise<void> {
    try {
      await Promise.race([this.#inner.probe(signal), rejectOnAbort(signal)]);
      // What has become of clients' writes is told by those alone.
      this.#succeededMs = performance.now();
    } catch (error) {
      this.#failedMs = performance.now();
      this.#unreadable = undefined;
      throw error;
    }
  }
}
