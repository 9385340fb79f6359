/** 2019-02-12T19:33:20Z, from which OpenReplay session ids count milliseconds. */
const EPOCH = 1_550_000_000_000;
/** The format has 40 bits for the time. The highest would be the sign of PostgreSQL's bigint, so ids end in July 2036. */
const ELAPSED_MAX = 2 ** 39 - 1;
const SEQUENCE_MAX = 0xff;
const WORKER_MAX = 0xffff;

/** Issues session ids as OpenReplay lays them out: milliseconds, 16 bits of worker, 8 bits of sequence. */
export class SessionIds {
  readonly #worker: () => number;
  readonly #now: () => number;
  #elapsed = 0;
  #sequence = 0;

  /** `worker` gives 0 up to 65535, which no other process has at that moment, or throws. */
  constructor(worker: () => number, now: () => number = Date.now) {
    this.#worker = worker;
    this.#now = now;
  }

  /**
   * Greater than every id before it: when the clock stands still or goes back, ids go on from the last one and run ahead of the
   * clock after 256 in a millisecond. Throws a RangeError when the clock is outside what the format holds.
   */
  next(): bigint {
    const worker = this.#worker();
    if (!Number.isInteger(worker) || worker < 0 || worker > WORKER_MAX)
      throw new RangeError(`Worker ${worker} is not 16 bits.`);
    const exhausted = this.#sequence === SEQUENCE_MAX;
    const elapsed = Math.max(Math.floor(this.#now()) - EPOCH, this.#elapsed + (exhausted ? 1 : 0));
    if (!(elapsed > 0 && elapsed <= ELAPSED_MAX))
      throw new RangeError(`Session ids cannot hold the time ${elapsed + EPOCH}.`);
    this.#sequence = elapsed > this.#elapsed ? 0 : this.#sequence + 1;
    this.#elapsed = elapsed;
    return (BigInt(elapsed) << 24n) | BigInt((worker << 8) | this.#sequence);
  }
}

/** Epoch milliseconds at which the id was issued. */
export function timeOf(sessionId: bigint): number {
  return Number(sessionId >> 24n) + EPOCH;
}
