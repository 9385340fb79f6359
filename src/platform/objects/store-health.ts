import { unlessAborted } from "../time-limit.ts";
import { ObjectConflict } from "./objects.ts";
import { WrappedObjects } from "./wrapped-objects.ts";

// Time for which a result is reused if requests to the store cost money.
const HOLDS_MS = 1000;
const ASK_MS = 2000;
// Time after which a pending write counts as stalled, while no other write succeeds.
const STALLED_MS = 2000;
// Interval of probe writes while clients do not write; clients' own writes otherwise show whether
// the store accepts any.
const PROBE_EVERY_MS = 600_000;
// Interval of probe writes if reads are refused and so cannot show the store's health.
const PROBE_UNREADABLE_MS = 60_000;
// Time for which clients' writes must fail, without one success, to outweigh a successful probe.
const FAILING_MS = 3000;
// Time for which failed client writes count: longer than the pause between two attempts of a
// commit.
const FAILED_RECENTLY_MS = 4500;

/**
 * Knows whether the store accepts writes: from the outcome of clients' writes, which all pass
 * through here, or else from a read at most once a second while somebody asks, and rarely a write.
 * Reads alone would not reveal a full store or a read-only key; writes cost money.
 */
export class StoreHealth extends WrappedObjects {
  /** Start times of writes in progress. */
  readonly #pending = new Set<{ sinceMs: number }>();
  #succeededMs = Number.NEGATIVE_INFINITY;
  #failedMs = Number.NEGATIVE_INFINITY;
  /** First and last failure of clients' writes since one succeeded. */
  #clients: { sinceMs: number; lastMs: number; error: unknown } | undefined;
  #answer: { atMs: number; error?: unknown } | undefined;
  #asking: Promise<void> | undefined;
  /** Error of a read that failed although a write succeeded. */
  #unreadable: string | undefined;

  /** Rejects, within two seconds, if the store does not accept writes. */
  async check(): Promise<void> {
    const isFailing = this.#isFailing();
    if (!isFailing && this.#holds(this.#succeededMs)) return;
    const cause = this.#clientsFail();
    if (cause !== undefined) throw new Error("the writes of clients fail", { cause });
    const isNews = isFailing && this.#answer?.error === undefined;
    if (isNews || !this.#holds(this.#answer?.atMs)) {
      this.#asking ??= this.#ask().finally(() => (this.#asking = undefined));
      await this.#asking;
    }
    if (this.#answer?.error !== undefined)
      throw new Error("the store does not accept writes", { cause: this.#answer.error });
  }

  override async put(key: string, body: Uint8Array, signal?: AbortSignal): Promise<void> {
    const write = { sinceMs: performance.now() };
    this.#pending.add(write);
    try {
      await super.put(key, body, signal);
      this.#succeeded();
    } catch (error) {
      // A conflict or an aborted write says nothing about the store.
      if (!(error instanceof ObjectConflict) && signal?.aborted !== true) this.#failed(error);
      throw error;
    } finally {
      this.#pending.delete(write);
    }
  }

  /** Records success only: a failure may be that of the source stream. */
  override async upload(
    key: string,
    chunks: AsyncIterable<Uint8Array>,
    signal?: AbortSignal,
  ): Promise<void> {
    await super.upload(key, chunks, signal);
    this.#succeeded();
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

  /** Returns whether the last write failed, or one is stalled while no other succeeds. */
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

  /** Reads or writes to find out whether the store is healthy. Never rejects. */
  async #ask(): Promise<void> {
    const signal = AbortSignal.timeout(ASK_MS);
    try {
      if (this.#isFailing() || !(await this.#canRead(signal))) await this.#write(signal);
      this.#answer = { atMs: performance.now() };
    } catch (error) {
      this.#answer = { atMs: performance.now(), error };
    }
  }

  /** Returns whether a read is enough to tell that the store is healthy. */
  async #canRead(signal: AbortSignal): Promise<boolean> {
    const sinceMs = performance.now() - this.#succeededMs;
    try {
      await unlessAborted(signal, this.inner.ping(signal));
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
      await unlessAborted(signal, this.inner.probe(signal));
      // Keeps `#clients`: only clients' own writes clear their failures.
      this.#succeededMs = performance.now();
    } catch (error) {
      this.#failedMs = performance.now();
      this.#unreadable = undefined;
      throw error;
    }
  }
}
