import { existsSync, readFileSync } from "node:fs";
import { availableParallelism } from "node:os";

const TICK_MS = 20;
const LOAD = "/proc/loadavg";
// Even on the busiest machine a limit is reached at some time.
const SHARE_MIN = 0.2;

const CORES = availableParallelism();
const showsLoad = existsSync(LOAD);

// Limits in tests are meant for a machine that is not busy with something else. Sum of the time in
// which this process, or one that it waits for, probably had no core: a timer that is late, and the
// share of others in the cores.
let delayedMs = 0;
let tickedMs = performance.now();
setInterval(() => {
  const nowMs = performance.now();
  const tookMs = nowMs - tickedMs;
  delayedMs += tookMs - Math.min(tookMs, TICK_MS) * ownShare();
  tickedMs = nowMs;
}, TICK_MS).unref();

/** Returns the part of a core that each process has of those that want to run now. */
function ownShare(): number {
  if (!showsLoad) return 1;
  const [, running = "1"] = / (\d+)\//.exec(readFileSync(LOAD, "latin1")) ?? [];
  return Math.max(SHARE_MIN, Math.min(1, CORES / Number(running)));
}

/** Time in milliseconds that passes slowly while the machine is busy. For upper limits only. */
export function undelayedMs(): number {
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

type Timed<T> = {
  result: T;
  /** undelayed time that the work took, for upper limits */
  ms: number;
  /** time by the clock, for lower limits */
  wallMs: number;
};

/** Returns the result of the work, and how much time it took. */
export async function timed<T>(work: () => Promise<T>): Promise<Timed<T>> {
  const startedMs = undelayedMs();
  const startedWallMs = performance.now();
  const result = await work();
  const wallMs = performance.now() - startedWallMs;
  // Lets a late tick be counted.
  await Bun.sleep(0);
  return { result, ms: undelayedMs() - startedMs, wallMs };
}

/** Returns the CPU time of synchronous work, which other processes do not change. */
export function cpuMs(work: () => void): number {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}
