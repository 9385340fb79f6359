import { once } from "node:events";
import { setTimeout } from "node:timers/promises";

/**
 * A part of a process that works in the background from `start` until the signal. `start` resolves
 * once the service is ready. What a service still has to write or to give back when it has ended it
 * does in `[Symbol.asyncDispose]`.
 */
export interface Service extends Partial<AsyncDisposable> {
  start: (signal: AbortSignal) => void | Promise<void>;
}

/**
 * Starts services one after the other. When the stack is disposed, also because one of them does
 * not start, all of them end before any is disposed.
 */
export async function startServices(
  owner: AsyncDisposableStack,
  services: Service[],
): Promise<void> {
  // At once, because each may wait for the same database.
  const dispose = async (service: Service) => await service[Symbol.asyncDispose]?.();
  owner.defer(async () => {
    const ended = await Promise.allSettled(services.map(dispose));
    for (const one of ended) if (one.status === "rejected") throw one.reason;
  });
  const signal = signalOf(owner);
  for (const service of services) await service.start(signal);
}

/** Returns a signal that is aborted when the stack is disposed, before what the stack has now. */
export function signalOf(owner: AsyncDisposableStack): AbortSignal {
  return owner.adopt(new AbortController(), (ending) => ending.abort()).signal;
}

/** Calls `work` at an interval until the signal. The timer alone does not keep the process alive. */
export function repeat(everyMs: number, signal: AbortSignal, work: () => void): void {
  if (signal.aborted) return;
  const timer = setInterval(work, everyMs).unref();
  signal.addEventListener("abort", () => clearInterval(timer), { once: true });
}

/**
 * Takes steps until the signal. Rests for `everyMs` after a step, or for as long as it took if it
 * says that there is more: half of the time at most, because serving goes first.
 */
export async function repeatSteps(
  everyMs: number,
  signal: AbortSignal,
  step: () => Promise<boolean>,
  onError: (error: unknown) => void,
): Promise<void> {
  while (!signal.aborted) {
    const startedMs = performance.now();
    let isMore = false;
    try {
      isMore = await step();
    } catch (error) {
      onError(error);
    }
    const restMs = isMore ? performance.now() - startedMs : everyMs;
    await setTimeout(restMs, undefined, { signal }).catch(() => undefined);
  }
}

/** Resolves once the signal is aborted. */
export async function untilAborted(signal: AbortSignal): Promise<void> {
  if (!signal.aborted) await once(signal, "abort");
}
