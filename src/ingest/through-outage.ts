import pRetry from "p-retry";

import { isOutage } from "../platform/database.ts";

const RETRIES = 15;

/** Tries again through an outage of the database of some 20 seconds; a commit whose answer was lost is found when it is tried again. */
export async function throughOutage<T>(work: () => Promise<T>): Promise<T> {
  return await pRetry(work, {
    retries: RETRIES,
    minTimeout: 100,
    maxTimeout: 2000,
    shouldRetry: ({ error }) => isOutage(error),
  });
}
