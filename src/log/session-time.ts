/** OpenReplay session ids count milliseconds from 2019-02-12T19:33:20Z. */
export const SESSION_EPOCH_MS = 1_550_000_000_000;

/** Returns the epoch milliseconds at which a session's id was issued. */
export function sessionTime(sessionId: bigint): number {
  return Number(sessionId >> 24n) + SESSION_EPOCH_MS;
}
