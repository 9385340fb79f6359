export type Backoff = { baseMs: number; capMs: number };

/** Returns an exponentially growing delay, half of which is random. */
export function backoff(failures: number, { baseMs, capMs }: Backoff): number {
  return Math.min(baseMs * 2 ** (failures - 1), capMs) * (0.5 + Math.random() / 2);
}

/** Converts seconds or a date to milliseconds from now. Returns undefined for any other text. */
export function parseRetryAfter(value: string | undefined, epochMs: number): number | undefined {
  if (value === undefined) return undefined;
  if (/^\s*\d{1,9}\s*$/.test(value)) return Number(value) * 1000;
  const dateMs = Date.parse(value);
  return Number.isNaN(dateMs) ? undefined : Math.max(0, dateMs - epochMs);
}

/** Waits. Rejects with the signal's reason when it is aborted before. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  const abort = () => reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  try {
    await promise;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", abort);
  }
}
