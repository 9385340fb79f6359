import pRetry from "p-retry";

import { isOutage } from "./postgres-errors.ts";

const RETRIES = 15;

/**
 * Retries `work` through a database outage of some 20 seconds. `work` must be idempotent: a commit
 * may have succeeded although its answer was lost.
 */
export async function retryOutages<T>(work: () => Promise<T>): Promise<T> {
  return await pRetry(work, {
    retries: RETRIES,
    minTimeout: 100,
    maxTimeout: 2000,
    shouldRetry: ({ error }) => isOutage(error),
  });
}
