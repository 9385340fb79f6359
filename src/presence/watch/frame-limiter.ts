const FRAMES_PER_S = 20;
const FRAMES_BURST = 100;
const ERRORS_MAX = 10;
const ERROR_WINDOW_MS = 60_000;

/** Limits one client's frames to a rate, and its bad frames to ten a minute. */
export class FrameLimiter {
  #frames = FRAMES_BURST;
  #refilledMs: number;
  #errors = 0;
  #windowMs: number;

  constructor(nowMs: number) {
    this.#refilledMs = nowMs;
    this.#windowMs = nowMs;
  }

  /** Returns false if the frame comes too soon. */
  takeFrame(nowMs: number): boolean {
    const gained = ((nowMs - this.#refilledMs) / 1000) * FRAMES_PER_S;
    this.#frames = Math.min(FRAMES_BURST, this.#frames + gained);
    this.#refilledMs = nowMs;
    if (this.#frames < 1) return false;
    this.#frames--;
    return true;
  }

  /** Counts a bad frame; returns false if there were too many. */
  takeError(nowMs: number): boolean {
    if (nowMs - this.#windowMs >= ERROR_WINDOW_MS) {
      this.#windowMs = nowMs;
      this.#errors = 0;
    }
    this.#errors++;
    return this.#errors < ERRORS_MAX;
  }
}
