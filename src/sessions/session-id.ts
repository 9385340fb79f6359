import { SESSION_EPOCH_MS } from "../log/session-time.ts";

/**
 * Largest time of an id. The format has 40 bits for it, but the highest one would be the sign of
 * PostgreSQL's bigint, so ids end in July 2036.
 */
const ELAPSED_MAX = 2 ** 39 - 1;
const SEQUENCE_MAX = 0xff;
const WORKER_MAX = 0xffff;

/** Issues session ids in OpenReplay's layout: milliseconds, 16-bit worker id, 8-bit sequence. */
export class SessionIds {
  readonly #worker: () => number;
  readonly #now: () => number;
  #elapsed = 0;
  #sequence = 0;

  /**
   * `worker` returns a worker id from 0 to 65535 that no other process has just then, or throws.
   */
  constructor(worker: () => number, now: () => number = Date.now) {
    this.#worker = worker;
    this.#now = now;
  }

  /**
   * Returns an id greater than all before it. If the clock stands still or goes back, ids continue
   * from the last one; after 256 in a millisecond they run ahead of the clock. Throws RangeError if
   * the time does not fit the format.
   */
  next(): bigint {
    const worker = this.#worker();
    if (!Number.isInteger(worker) || worker < 0 || worker > WORKER_MAX)
      throw new RangeError(`Worker ${worker} is not 16 bits.`);
    const exhausted = this.#sequence === SEQUENCE_MAX;
    const elapsed = Math.max(
      Math.floor(this.#now()) - SESSION_EPOCH_MS,
      this.#elapsed + (exhausted ? 1 : 0),
    );
    if (!(elapsed > 0 && elapsed <= ELAPSED_MAX))
      throw new RangeError(`Session ids cannot hold the time ${elapsed + SESSION_EPOCH_MS}.`);
    this.#sequence = elapsed > this.#elapsed ? 0 : this.#sequence + 1;
    this.#elapsed = elapsed;
    return (BigInt(elapsed) << 24n) | BigInt((worker << 8) | this.#sequence);
  }
}
