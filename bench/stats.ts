import type { StageResult, TransferResult } from "./load/plan.ts";

/** Returns the median; NaN if there are no values. */
export function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? Number.NaN;
  if (sorted.length % 2 === 1) return upper;
  return ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

/** Figures of one subject over all its rounds. */
export type Figures = {
  rate: number;
  cpuMicroseconds: number;
  postgresMicroseconds: number | undefined;
  generatorMicroseconds: number;
  p50Ms: number;
  p99Ms: number;
  p999Ms: number;
  rssPeakBytes: number;
  putsPerMillion: number | undefined;
  rounds: number;
};

export function figuresOf(results: StageResult[]): Figures {
  const over = (read: (result: StageResult) => number) => median(results.map(read));
  const optional = (read: (result: StageResult) => number | undefined) => {
    const values = results.map(read).filter((value) => value !== undefined);
    return values.length === 0 ? undefined : median(values);
  };
  return {
    rate: over(rateOf),
    cpuMicroseconds: over((result) => per(result.usage.serverCpuSeconds, result)),
    postgresMicroseconds: optional((result) => {
      const seconds = result.usage.postgresCpuSeconds;
      return seconds === undefined ? undefined : per(seconds, result);
    }),
    generatorMicroseconds: over((result) => per(result.usage.generatorCpuSeconds, result)),
    p50Ms: over(({ latency }) => latency.p50Ms),
    p99Ms: over(({ latency }) => latency.p99Ms),
    p999Ms: over(({ latency }) => latency.p999Ms),
    // The highest of all rounds, because a memory limit must hold in each.
    rssPeakBytes: Math.max(...results.map(({ usage }) => usage.rssPeakBytes)),
    putsPerMillion: optional(putsPerMillion),
    rounds: results.length,
  };
}

function per(seconds: number, { acknowledged }: StageResult): number {
  return (seconds / acknowledged) * 1e6;
}

export function rateOf({ acknowledged, seconds }: StageResult): number {
  return acknowledged / seconds;
}

export function putsPerMillion({ usage, acknowledged }: StageResult): number | undefined {
  return usage.puts === undefined ? undefined : (usage.puts / acknowledged) * 1e6;
}

/** Returns the largest growth of all rounds, because a memory limit must hold in each. */
export function growthOf(results: TransferResult[]): number {
  return Math.max(...results.map(({ usage }) => usage.rssPeakBytes - usage.rssStartBytes));
}

export function peakOf(results: TransferResult[]): number {
  return Math.max(...results.map(({ usage }) => usage.rssPeakBytes));
}
