import { type Clock } from "../platform/clock.ts";

const SPREAD_MS_MAX = 2000;

/** Holds everyone back while a provider has asked for a pause. */
export class Gate {
  readonly #clock: Clock;
  #opensMs = Number.NEGATIVE_INFINITY;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get isShut(): boolean {
    return this.#clock.elapsedMs() < this.#opensMs;
  }

  shut(ms: number): void {
    this.#opensMs = Math.max(this.#opensMs, this.#clock.elapsedMs() + ms);
  }

  async pass(signal: AbortSignal): Promise<void> {
    for (;;) {
      const remainingMs = this.#opensMs - this.#clock.elapsedMs();
      if (remainingMs <= 0) return;
      // Not all at once behind it.
      await pause(remainingMs + Math.random() * Math.min(remainingMs / 4, SPREAD_MS_MAX), signal);
    }
  }
}

export type Backoff = { baseMs: number; capMs: number };

/** Exponential, with half of it random. */
export function backoff(failures: number, { baseMs, capMs }: Backoff): number {
  return Math.min(baseMs * 2 ** (failures - 1), capMs) * (0.5 + Math.random() / 2);
}

/** The header's seconds or date in milliseconds from now; undefined where it is neither. */
export function parseRetryAfter(value: string | undefined, epochMs: number): number | undefined {
  if (value === undefined) return undefined;
  if (/^\s*\d{1,9}\s*$/.test(value)) return Number(value) * 1000;
  const dateMs = Date.parse(value);
  return Number.isNaN(dateMs) ? undefined : Math.max(0, dateMs - epochMs);
}

/** Rejects with the signal's reason when it is aborted before the time is over. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  const abort = () => reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  try {
    await promise;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", abort);
  }
}
