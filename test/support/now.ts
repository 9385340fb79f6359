import { expect } from "bun:test";

/** Allowed difference between the database's clock, which the server uses, and this machine's. */
const SKEW_MS_MAX = 250;

/** Fails unless the time, in epoch ms, is one between `sinceMs` and now. */
export function expectNow(ms: number, sinceMs: number): void {
  expect(ms).toBeGreaterThanOrEqual(sinceMs - SKEW_MS_MAX);
  expect(ms).toBeLessThanOrEqual(Date.now() + SKEW_MS_MAX);
}
