import { existsSync, readFileSync, writeFileSync } from "node:fs";

/**
 * Reads the CPU time and memory that processes have used from the kernel. These figures hold on a
 * noisy machine, where rates and latencies do not. Outside Linux they come from `ps`, with coarser
 * CPU times and no high-water mark of memory.
 */

const HAS_PROC = existsSync("/proc/self/stat");
// USER_HZ, the unit of /proc/<pid>/stat, is 100 on every Linux that Bun runs on.
const TICKS_PER_SECOND = 100;
const UTIME = 11;
const STIME = 12;
const CUTIME = 13;
const CSTIME = 14;

/** Returns user and system time of all threads, including those that ended. */
export function cpuSeconds(pid: number): number {
  if (!HAS_PROC) return psSeconds(pid);
  const fields = statFields(pid);
  return (field(fields, UTIME) + field(fields, STIME)) / TICKS_PER_SECOND;
}

/**
 * Returns the same for a process with its children, including ended ones: PostgreSQL's backends.
 */
export function familyCpuSeconds(pid: number): number {
  if (!HAS_PROC) return psSeconds(pid);
  const fields = statFields(pid);
  const ended = field(fields, CUTIME) + field(fields, CSTIME);
  return ended / TICKS_PER_SECOND + familySum(pid, cpuSeconds);
}

/** Returns the resident memory of a process with its children; shared pages count for each. */
export function rssBytes(pid: number): number {
  if (!HAS_PROC) return Number(ps(pid, "rss")) * 1024;
  return familySum(pid, (each) => statusBytes(each, "VmRSS"));
}

/**
 * Returns the resident memory, counted page by page: `VmRSS` may be off by some hundred KiB, which
 * would distort the figures of idle connections.
 */
export function exactRssBytes(pid: number): number {
  try {
    const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, "latin1");
    const match = /^Rss:\s+(\d+) kB/m.exec(rollup);
    if (match !== null) return Number(match[1]) * 1024;
  } catch {
    // Not Linux, or a kernel without this file.
  }
  return rssBytes(pid);
}

/**
 * Returns the peak of resident memory since the last reset, that of children added; undefined
 * outside Linux.
 */
export function peakRssBytes(pid: number): number | undefined {
  return HAS_PROC ? familySum(pid, (each) => statusBytes(each, "VmHWM")) : undefined;
}

/** Resets the peak to the memory that is resident now; returns false where that is not possible. */
export function resetPeakRss(pid: number): boolean {
  try {
    for (const each of [pid, ...children(pid)]) writeFileSync(`/proc/${each}/clear_refs`, "5");
    return true;
  } catch {
    return false;
  }
}

function statFields(pid: number): string[] {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  // The program's name may contain spaces and brackets; the fields follow the last bracket.
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

function familySum(pid: number, read: (pid: number) => number): number {
  return children(pid).reduce((sum, child) => sum + ifAlive(child, read), read(pid));
}

function ifAlive(pid: number, read: (pid: number) => number): number {
  try {
    return read(pid);
  } catch {
    return 0; // It has ended since it was listed; its parent's CPU time includes its own.
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
