import { type Clock } from "../../src/platform/clock.ts";

/** Time that passes when a test says so. It begins with the second after this one: what PostgreSQL takes for old must not be all that a test makes. */
export class FakeClock implements Clock {
  #epochMs = Math.ceil(Date.now() / 1000) * 1000;
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
