/** Source of time, passed as a dependency so that tests need not wait. */
export type Clock = {
  /** Wall clock in epoch milliseconds, which may jump. */
  epochMs: () => number;
  /** Monotonic clock in milliseconds. */
  elapsedMs: () => number;
  /** Milliseconds by which this machine's wall clock is ahead of `epochMs`, if they can differ. */
  skewMs?: () => number;
};

export const SYSTEM_CLOCK: Clock = {
  epochMs: () => Date.now(),
  elapsedMs: () => performance.now(),
};
