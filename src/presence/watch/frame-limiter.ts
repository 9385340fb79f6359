import { TokenBucket } from "../../platform/token-bucket.ts";

const FRAMES_PER_S = 20;
const FRAMES_BURST = 100;
const ERRORS_MAX = 10;
const ERROR_WINDOW_MS = 60_000;

/** Limits one client's frames to a rate, and its invalid frames to ten a minute. */
export class FrameLimiter {
  readonly #now: () => number;
  readonly #frames: TokenBucket;
  #errors = 0;
  #windowMs: number;

  constructor(now: () => number) {
    this.#now = now;
    this.#frames = new TokenBucket(FRAMES_PER_S, FRAMES_BURST, now);
    this.#windowMs = now();
  }

  /** Counts a frame. Returns false if it comes too soon. */
  takeFrame(): boolean {
    return this.#frames.tryTake(1);
  }

  /** Counts an invalid frame. Returns false if it is one too many. */
  takeError(): boolean {
    const nowMs = this.#now();
    if (nowMs - this.#windowMs >= ERROR_WINDOW_MS) {
      this.#windowMs = nowMs;
      this.#errors = 0;
    }
    this.#errors++;
    return this.#errors < ERRORS_MAX;
  }
}
