import { type Clock } from "../../src/platform/clock.ts";

const START_EPOCH_MS = 1_760_000_000_000;

/** Time that passes when a test says so. */
export class FakeClock implements Clock {
  #epochMs = START_EPOCH_MS;
  #elapsedMs = 0;

  readonly epochMs = (): number => this.#epochMs;
  readonly elapsedMs = (): number => this.#elapsedMs;

  advance(ms: number): void {
    this.#epochMs += ms;
    this.#elapsedMs += ms;
  }

  /** What an operator or NTP does: the wall clock alone, in either direction. */
  jump(ms: number): void {
    this.#epochMs += ms;
  }

  get epochS(): number {
    return Math.floor(this.#epochMs / 1000);
  }
}
