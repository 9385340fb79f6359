const TICK_MS = 20;

// Sum of the delays of a timer: time in which other processes had the cores. Limits in tests are
// meant for a machine that is not busy with something else.
let delayedMs = 0;
let tickedMs = performance.now();
setInterval(() => {
  const nowMs = performance.now();
  delayedMs += Math.max(0, nowMs - tickedMs - TICK_MS);
  tickedMs = nowMs;
}, TICK_MS).unref();

/** Time in milliseconds that does not pass while this process waits for a core. */
function undelayedMs(): number {
  return performance.now() - delayedMs;
}

/** Resolves once `holds` does; fails when it does not within `withinMs` of undelayed time. */
export async function eventually(
  what: string,
  holds: () => boolean | Promise<boolean>,
  withinMs = 10_000,
): Promise<void> {
  const until = undelayedMs() + withinMs;
  while (!(await holds())) {
    if (undelayedMs() > until) throw new Error(`not within ${withinMs} ms: ${what}`);
    await Bun.sleep(5);
  }
}

/** Returns the result of the work, and how much undelayed time it took. */
export async function timed<T>(work: () => Promise<T>): Promise<{ result: T; ms: number }> {
  const startedMs = undelayedMs();
  const result = await work();
  // Lets a late tick be counted.
  await Bun.sleep(0);
  return { result, ms: undelayedMs() - startedMs };
}

/** Returns the CPU time of synchronous work, which other processes do not change. */
export function cpuMs(work: () => void): number {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}
