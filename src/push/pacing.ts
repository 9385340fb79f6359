import { type Clock } from "../platform/clock.ts";

const SPREAD_MS_MAX = 2000;
/**
 * FCM answers 429 when the project sends too much and when a single device gets too much, and not always says which. It is the project
 * once so many more devices were limited than served: each push counts once, so that no device stops the others, and one that is served
 * counts against it, so that limited devices among others do not add up.
 */
const LIMITED_MAX = 10;

/** Holds everyone back while a provider has asked for a pause. */
export class Gate {
  readonly #clock: Clock;
  #opensMs = Number.NEGATIVE_INFINITY;
  /** How many more devices were limited than served, as far as it matters. */
  #limited = 0;
  /**
   * Number of pushes that the provider has judged individually, which shows that it accepts the
   * credentials.
   */
  acceptedCount = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get isShut(): boolean {
    return this.#clock.elapsedMs() < this.#opensMs;
  }

  shut(ms: number): void {
    this.#opensMs = Math.max(this.#opensMs, this.#clock.elapsedMs() + ms);
  }

  served(): void {
    if (this.#limited > 0) this.#limited -= 1;
  }

  limited(): void {
    if (this.#limited < LIMITED_MAX) this.#limited += 1;
  }

  /** Whether those that are limited are evidently not so for their own sake. */
  get isProviderLimited(): boolean {
    return this.#limited === LIMITED_MAX;
  }

  /** It may have been shut again meanwhile. */
  async pass(signal: AbortSignal): Promise<void> {
    const remainingMs = Math.max(0, this.#opensMs - this.#clock.elapsedMs());
    // Not all at once behind it.
    await pause(remainingMs + Math.random() * Math.min(remainingMs / 4, SPREAD_MS_MAX), signal);
  }
}

/** After a rest so much time's sends may go at once. */
const BURST_MS = 20;

type Waiting = { signal: AbortSignal; resolve: () => void; reject: (reason: unknown) => void };

/** Lets so many go in a second, in the order in which they ask. */
export class Pace {
  readonly #intervalMs: number;
  readonly #clock: Clock;
  readonly #closing: AbortSignal;
  /** When the next one may go if nobody is to be early. */
  #dueMs = Number.NEGATIVE_INFINITY;
  #waiting: Waiting[] = [];
  #timer: NodeJS.Timeout | undefined;
  readonly #heard = new WeakSet<AbortSignal>();

  constructor(perSecond: number, clock: Clock, closing: AbortSignal) {
    this.#intervalMs = 1000 / perSecond;
    this.#clock = clock;
    this.#closing = closing;
  }

  /** Undefined when its turn is now: a promise would cost each send a turn of the loop. Rejects with the reason of the signal, or of the closing. */
  turn(signal: AbortSignal): Promise<void> | undefined {
    if (this.#waiting.length === 0 && this.#take(this.#clock.elapsedMs())) return undefined;
    return this.#wait(signal);
  }

  async #wait(signal: AbortSignal): Promise<void> {
    this.#hear(signal);
    this.#hear(this.#closing);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#waiting.push({ signal, resolve, reject });
    if (this.#timer === undefined) this.#wake();
    await promise;
  }

  /** One listener for all that wait with a signal. */
  #hear(signal: AbortSignal): void {
    signal.throwIfAborted();
    if (this.#heard.has(signal)) return;
    this.#heard.add(signal);
    signal.addEventListener("abort", () => this.#end(signal), { once: true });
  }

  #end(signal: AbortSignal): void {
    const all = this.#waiting;
    this.#waiting = [];
    for (const one of all)
      if (signal === this.#closing || signal === one.signal) one.reject(signal.reason);
      else this.#waiting.push(one);
  }

  #take(nowMs: number): boolean {
    if (nowMs < this.#freeMs) return false;
    this.#dueMs = Math.max(this.#dueMs, nowMs) + this.#intervalMs;
    return true;
  }

  get #freeMs(): number {
    return this.#dueMs - Math.max(0, BURST_MS - this.#intervalMs);
  }

  #wake(): void {
    const afterMs = Math.max(0, this.#freeMs - this.#clock.elapsedMs());
    this.#timer = setTimeout(() => this.#release(), afterMs);
  }

  #release(): void {
    const nowMs = this.#clock.elapsedMs();
    let released = 0;
    for (const { resolve } of this.#waiting) {
      if (!this.#take(nowMs)) break;
      resolve();
      released += 1;
    }
    this.#waiting.splice(0, released);
    this.#timer = undefined;
    if (this.#waiting.length > 0) this.#wake();
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
