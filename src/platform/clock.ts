/** Time as a dependency, so that tests need not wait. */
export type Clock = {
  /** the wall clock in epoch milliseconds, which may jump */
  epochMs: () => number;
  /** milliseconds that only ever grow */
  elapsedMs: () => number;
  /** how far this machine's wall clock is ahead of the time that is told, if that is another one */
  skewMs?: () => number;
};

export const SYSTEM_CLOCK: Clock = {
  epochMs: () => Date.now(),
  elapsedMs: () => performance.now(),
};
