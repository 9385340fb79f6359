/** Rejects with the signal's reason once it is aborted. */
export async function rejectOnAbort(signal: AbortSignal): Promise<never> {
  signal.throwIfAborted();
  const { promise, reject } = Promise.withResolvers<never>();
  signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  return await promise;
}
