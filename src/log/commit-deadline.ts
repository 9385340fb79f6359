/** Aborts the attempts of a commit after `ms`, or at once if no time is left. */
export class CommitDeadline implements Disposable {
  readonly #controller = new AbortController();
  readonly #timer: NodeJS.Timeout;
  readonly signal = this.#controller.signal;

  constructor(ms: number) {
    this.#timer = setTimeout(() => this.expire(), Math.max(0, ms));
    if (ms <= 0) this.expire();
  }

  expire(): void {
    this.#controller.abort(new Error("not stored in time"));
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }
}
