import { unavailable } from "../platform/errors.ts";

/** Waiting time of a record above which more is let in than the store can take. */
const DELAY_TARGET_MS = 5000;
// Reserve on top of the limit, as a part of it, for projects that hold less than their share.
const RESERVE = 1 / 4;

/**
 * Counts the bytes that this process holds for waiting clients: bodies being read and records not
 * yet durable. Above the limit new requests are refused at once, except those of projects that hold
 * less than their share of it: they have a reserve, so that a project that fills the limit does not
 * keep the others out. The limit follows the store and the database: it falls when records wait too
 * long for them and grows back with each commit in time.
 */
export class InflightBytes {
  readonly #max: number;
  readonly #step: number;
  #limit: number;
  /** Bytes by project; projects that hold nothing have no entry. */
  readonly #held = new Map<number, number>();
  /** Waiting uploads, first in, first out. */
  #waiting: Waiting[] = [];
  bytes = 0;

  constructor(max: number, step: number) {
    this.#max = max;
    this.#step = step;
    this.#limit = max;
  }

  /** Number of bytes above which requests are refused. */
  get limit(): number {
    return this.#limit;
  }

  /** Adds the bytes, or throws 503 if there is no room. Give them back with `release`. */
  reserve(projectId: number, bytes: number): void {
    this.check(projectId, bytes);
    this.add(projectId, bytes);
  }

  /**
   * Throws 503 if there is no room for that many bytes, which the caller must add in the same turn
   * of the event loop.
   */
  check(projectId: number, bytes: number): void {
    if (this.bytes > 0 && !this.#fits(projectId, bytes))
      throw unavailable("too much is being stored at the moment, send it again", 1, {
        reason: "overload",
      });
  }

  release(projectId: number, bytes: number): void {
    this.#give(projectId, bytes);
    if (this.bytes < this.#limit) this.#resume();
  }

  /** Returns a hold of no bytes, which releases at the end what it has reserved. */
  holding(projectId: number): Hold {
    return new Hold(this, projectId);
  }

  /** Adds bytes without a check for room. */
  add(projectId: number, bytes: number): void {
    if (bytes === 0) return;
    this.bytes += bytes;
    this.#held.set(projectId, (this.#held.get(projectId) ?? 0) + bytes);
  }

  /** Removes the bytes, by project, of records settled after `delayMs`, and adapts the limit. */
  remove(held: ReadonlyMap<number, number>, delayMs: number): void {
    const limit =
      delayMs > DELAY_TARGET_MS
        ? Math.max(2 * this.#step, (this.bytes * DELAY_TARGET_MS) / delayMs)
        : this.#limit + this.#step;
    this.#limit = Math.min(this.#max, limit);
    for (const [projectId, bytes] of held) this.#give(projectId, bytes);
    this.#resume();
  }

  /**
   * Returns whether `hold` would resolve at once; uploads of one project do not overtake each
   * other.
   */
  admits(projectId: number): boolean {
    return this.#fits(projectId, 1) && !this.#waiting.some((one) => one.projectId === projectId);
  }

  /**
   * Reserves the bytes as soon as there is any room, so that an upload that has begun pauses
   * instead of failing. They may exceed the room that is left, so that no upload waits forever; the
   * next one then waits. Release the bytes with `release`.
   */
  async hold(projectId: number, bytes: number): Promise<void> {
    if (bytes === 0) return;
    if (this.admits(projectId)) {
      this.add(projectId, bytes);
      return;
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push({ projectId, bytes, admit: resolve });
    await promise;
  }

  #fits(projectId: number, bytes: number): boolean {
    const total = this.bytes + bytes;
    if (total <= this.#limit) return true;
    const held = this.#held.get(projectId);
    const sharers = this.#held.size + (held === undefined ? 1 : 0);
    return (held ?? 0) + bytes <= this.#limit / sharers && total <= this.#max * (1 + RESERVE);
  }

  #give(projectId: number, bytes: number): void {
    this.bytes -= bytes;
    const left = (this.#held.get(projectId) ?? 0) - bytes;
    if (left > 0) this.#held.set(projectId, left);
    else this.#held.delete(projectId);
  }

  /**
   * Resumes waiting uploads one by one while there is room, so that they do not fill it all at
   * once.
   */
  #resume(): void {
    if (this.#waiting.length === 0) return;
    const full = new Set<number>();
    this.#waiting = this.#waiting.filter(({ projectId, bytes, admit }) => {
      if (full.has(projectId) || !this.#fits(projectId, 1)) {
        full.add(projectId);
        return true;
      }
      this.add(projectId, bytes);
      admit();
      return false;
    });
  }
}

/** Bytes that one request holds while it is being read. */
export class Hold implements Disposable {
  readonly #inflight: InflightBytes;
  readonly #projectId: number;
  #bytes = 0;

  constructor(inflight: InflightBytes, projectId: number) {
    this.#inflight = inflight;
    this.#projectId = projectId;
  }

  /** Reserves more bytes. Throws 503 if there is no room. */
  readonly reserve = (bytes: number): void => {
    this.#inflight.reserve(this.#projectId, bytes);
    this.#bytes += bytes;
  };

  [Symbol.dispose](): void {
    this.#inflight.release(this.#projectId, this.#bytes);
  }
}

type Waiting = { projectId: number; bytes: number; admit: () => void };
