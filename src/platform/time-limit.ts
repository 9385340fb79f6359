/** Aborts its signal after `ms` with the error that `late` makes, or with the `outer` signal. */
export class TimeLimit implements Disposable {
  readonly signal: AbortSignal;
  readonly #controller = new AbortController();
  readonly #late: () => Error;
  readonly #timer: NodeJS.Timeout | undefined;

  /** Aborts at once if no time is left, and never after an infinite time. */
  constructor(ms: number, late: () => Error, outer?: AbortSignal) {
    const { signal } = this.#controller;
    this.signal = outer ? AbortSignal.any([outer, signal]) : signal;
    this.#late = late;
    if (ms <= 0) this.expire();
    else if (Number.isFinite(ms)) this.#timer = setTimeout(() => this.expire(), ms);
  }

  /** Aborts now, as after `ms`. */
  expire(): void {
    this.abort(this.#late());
  }

  protected abort(reason?: Error): void {
    this.#controller.abort(reason);
  }

  /** Restarts the time limit. */
  extend(): void {
    this.#timer?.refresh();
  }

  /** Removes the time limit; the outer signal still aborts. */
  lift(): void {
    clearTimeout(this.#timer);
  }

  [Symbol.dispose](): void {
    this.lift();
  }
}

/** Returns what the work returns or, once `ms` have passed, what `late` returns or throws. */
export async function inTime<T>(ms: number, work: Promise<T>, late: () => T): Promise<T> {
  const { promise: timeUp, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  return await Promise.race([work, timeUp.then(late)]).finally(() => clearTimeout(timer));
}

/** Waits for the work at most so long. Returns whether it was done in time. */
export async function doneWithin(ms: number, work: Promise<unknown>): Promise<boolean> {
  return await inTime(
    ms,
    work.then(() => true),
    () => false,
  );
}

/** Returns what the work returns. Throws the signal's reason once that is aborted. */
export async function unlessAborted<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const abort = () => reject(signal.reason);
  if (signal.aborted) abort();
  else signal.addEventListener("abort", abort, { once: true });
  return await Promise.race([work, promise]).finally(() =>
    signal.removeEventListener("abort", abort),
  );
}
