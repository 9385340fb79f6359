type Timer = ReturnType<typeof setTimeout>;

// Timers of Elysia are ignored: it sets one for the whole process, which empties a cache.
const ELYSIA = "node_modules/elysia";

/** Records the timers of this process that were set meanwhile and can still fire. */
export class OpenTimers implements Disposable {
  readonly #open = new Map<Timer, string>();
  readonly #own = { setTimeout, setInterval, clearTimeout, clearInterval };

  constructor() {
    const { setTimeout: timeout, setInterval: interval } = this.#own;
    const watched = {
      setTimeout: (work: (...given: unknown[]) => void, ms?: number, ...given: unknown[]) => {
        const timer = timeout(() => {
          this.#open.delete(timer);
          work(...given);
        }, ms);
        return this.#add(timer);
      },
      setInterval: (work: (...given: unknown[]) => void, ms?: number, ...given: unknown[]) =>
        this.#add(interval(work, ms, ...given)),
      clearTimeout: (timer: Timer) => this.#clear(timer),
      clearInterval: (timer: Timer) => this.#clear(timer),
    };
    Object.assign(globalThis, watched);
  }

  /** Places at which the open timers were set. */
  get all(): string[] {
    return [...this.#open.values()].filter((place) => !place.includes(ELYSIA));
  }

  [Symbol.dispose](): void {
    Object.assign(globalThis, this.#own);
  }

  #add(timer: Timer): Timer {
    this.#open.set(timer, new Error("timer").stack?.split("\n").slice(3, 5).join(" ") ?? "");
    return timer;
  }

  #clear(timer: Timer): void {
    this.#open.delete(timer);
    this.#own.clearTimeout(timer);
  }
}
