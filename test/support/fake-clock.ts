import { type Clock } from "../../src/platform/clock.ts";

/**
 * Clock that tests advance. It begins with the next whole second, so that rows of a test do not
 * look old to PostgreSQL.
 */
export class FakeClock implements Clock {
  #epochMs = Math.ceil(Date.now() / 1000) * 1000;
  #elapsedMs = 0;

  readonly epochMs = (): number => this.#epochMs;
  readonly elapsedMs = (): number => this.#elapsedMs;

  advance(ms: number): void {
    this.#epochMs += ms;
    this.#elapsedMs += ms;
  }

  /** Moves the wall clock alone, in either direction, like an operator or NTP. */
  jump(ms: number): void {
    this.#epochMs += ms;
  }

  get epochS(): number {
    return Math.floor(this.#epochMs / 1000);
  }
}
