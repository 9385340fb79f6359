import { expect } from "bun:test";

/** The server tells time by the database's clock, which may differ from this machine's by so much. */
const SKEW_MS_MAX = 250;

/** Fails unless the time, in epoch ms, is one between `sinceMs` and now. */
export function expectNow(ms: number, sinceMs: number): void {
  expect(ms).toBeGreaterThanOrEqual(sinceMs - SKEW_MS_MAX);
  expect(ms).toBeLessThanOrEqual(Date.now() + SKEW_MS_MAX);
}
