import { existsSync, readFileSync, writeFileSync } from "node:fs";

/**
 * What processes have used, from the kernel's own books. It holds on a noisy machine, where rates and latencies do not.
 * Outside Linux `ps` stands in: its CPU times are coarser and there is no high-water mark.
 */

const HAS_PROC = existsSync("/proc/self/stat");
// USER_HZ, the unit of /proc/<pid>/stat, is 100 on every Linux that Bun runs on.
const TICKS_PER_SECOND = 100;
const UTIME = 11;
const STIME = 12;
const CUTIME = 13;
const CSTIME = 14;

/** User and system time of all threads, those that ended included. */
export function cpuSeconds(pid: number): number {
  if (!HAS_PROC) return psSeconds(pid);
  const fields = statFields(pid);
  return (field(fields, UTIME) + field(fields, STIME)) / TICKS_PER_SECOND;
}

/** The same for a process with its children, those that ended included: PostgreSQL and its backends. */
export function familyCpuSeconds(pid: number): number {
  if (!HAS_PROC) return psSeconds(pid);
  const fields = statFields(pid);
  const own = field(fields, UTIME) + field(fields, STIME);
  const ended = field(fields, CUTIME) + field(fields, CSTIME);
  return (
    (own + ended) / TICKS_PER_SECOND + children(pid).reduce((sum, child) => sum + alive(child), 0)
  );
}

export function rssBytes(pid: number): number {
  if (!HAS_PROC) return Number(ps(pid, "rss")) * 1024;
  return statusBytes(pid, "VmRSS");
}

/** What is resident, counted page by page: `VmRSS` may be off by some hundred KiB, which thousands of idle connections would show. */
export function exactRssBytes(pid: number): number {
  try {
    const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, "latin1");
    const match = /^Rss:\s+(\d+) kB/m.exec(rollup);
    if (match !== null) return Number(match[1]) * 1024;
  } catch {
    // Not Linux, or a kernel without it.
  }
  return rssBytes(pid);
}

/** The most it ever had, or since the last reset; undefined where the kernel does not keep it. */
export function peakRssBytes(pid: number): number | undefined {
  return HAS_PROC ? statusBytes(pid, "VmHWM") : undefined;
}

/** Sets the high-water mark back to what is resident now; false where that cannot be done. */
export function resetPeakRss(pid: number): boolean {
  try {
    writeFileSync(`/proc/${pid}/clear_refs`, "5");
    return true;
  } catch {
    return false;
  }
}

function statFields(pid: number): string[] {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  // The program's name may hold spaces and brackets; what follows its last bracket does not.
  return stat.slice(stat.lastIndexOf(")") + 2).split(" ");
}

function field(fields: string[], index: number): number {
  return Number(fields[index] ?? Number.NaN);
}

function statusBytes(pid: number, name: string): number {
  const status = readFileSync(`/proc/${pid}/status`, "latin1");
  const match = new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status);
  if (match === null) throw new Error(`no ${name} for process ${pid}`);
  return Number(match[1]) * 1024;
}

function children(pid: number): number[] {
  try {
    const list = readFileSync(`/proc/${pid}/task/${pid}/children`, "latin1");
    return list.split(" ").filter(Boolean).map(Number);
  } catch {
    return []; // Kernels without CONFIG_PROC_CHILDREN.
  }
}

function alive(pid: number): number {
  try {
    return cpuSeconds(pid);
  } catch {
    return 0; // Ended since it was listed; its time is in its parent's sum.
  }
}

function psSeconds(pid: number): number {
  // [[days-]hours:]minutes:seconds
  const parts = ps(pid, "time").split(/[-:]/).map(Number).toReversed();
  const [seconds = 0, minutes = 0, hours = 0, days = 0] = parts;
  return seconds + 60 * minutes + 3600 * hours + 86_400 * days;
}

function ps(pid: number, column: string): string {
  const { exitCode, stdout } = Bun.spawnSync(["ps", "-o", `${column}=`, "-p", String(pid)]);
  if (exitCode !== 0) throw new Error(`process ${pid} is gone`);
  return stdout.toString().trim();
}
