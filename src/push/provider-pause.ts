import { type Clock } from "../platform/clock.ts";
import { pause } from "./backoff.ts";

const SPREAD_MS_MAX = 2000;
/**
 * Surplus of limited over served devices from which on a 429 concerns the whole project. FCM does
 * not always say whether the project or a single device gets too much.
 */
const LIMITED_MAX = 10;

/** Holds back all pushes to a provider while it has asked for a pause. */
export class ProviderPause {
  readonly #clock: Clock;
  #endsMs = Number.NEGATIVE_INFINITY;
  /** Surplus of limited over served devices, from 0 to LIMITED_MAX. */
  #limited = 0;
  /**
   * Number of pushes that the provider has judged individually, which shows that it accepts the
   * credentials.
   */
  acceptedCount = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get isActive(): boolean {
    return this.#clock.elapsedMs() < this.#endsMs;
  }

  extend(ms: number): void {
    this.#endsMs = Math.max(this.#endsMs, this.#clock.elapsedMs() + ms);
  }

  countServed(): void {
    if (this.#limited > 0) this.#limited -= 1;
  }

  /** Counts a device that was limited. Call it once per push, so that no single device adds up. */
  countLimited(): void {
    if (this.#limited < LIMITED_MAX) this.#limited += 1;
  }

  get isProviderLimited(): boolean {
    return this.#limited === LIMITED_MAX;
  }

  /** Waits until the pause ends as it is known now; it may have been extended since. */
  async pass(signal: AbortSignal): Promise<void> {
    const remainingMs = Math.max(0, this.#endsMs - this.#clock.elapsedMs());
    // The random part spreads the pushes that wait.
    await pause(remainingMs + Math.random() * Math.min(remainingMs / 4, SPREAD_MS_MAX), signal);
  }
}
