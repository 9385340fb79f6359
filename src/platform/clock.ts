/** Time as a dependency, so that tests need not wait. */
export type Clock = {
  /** the wall clock in epoch milliseconds, which may jump */
  epochMs: () => number;
  /** milliseconds that only ever grow */
  elapsedMs: () => number;
  /** Milliseconds by which this machine's wall clock is ahead of `epochMs`, if they can differ. */
  skewMs?: () => number;
};

export const SYSTEM_CLOCK: Clock = {
  epochMs: () => Date.now(),
  elapsedMs: () => performance.now(),
};
