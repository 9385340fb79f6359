import type { Sample, StageResult, TransferResult } from "./load/plan.ts";

/** Returns the median; NaN if there are no values. */
export function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? Number.NaN;
  if (sorted.length % 2 === 1) return upper;
  return ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

/** Returns how far apart the values are, as a share of their median; 0 for less than two. */
export function spread(values: number[]): number {
  return values.length < 2 ? 0 : (Math.max(...values) - Math.min(...values)) / median(values);
}

/**
 * Returns how fast the memory grows after the first quarter of the samples, as the slope of a line
 * fitted to the rest: the share of their mean that is added per minute.
 */
export function growthPerMinute(samples: Sample[]): number {
  const rest = samples.slice(Math.ceil(samples.length / 4));
  const mean = (read: (sample: Sample) => number) =>
    rest.reduce((sum, each) => sum + read(each), 0) / rest.length;
  const [middle, level] = [mean(({ seconds }) => seconds), mean(({ bytes }) => bytes)];
  const covariance = mean(({ seconds, bytes }) => (seconds - middle) * (bytes - level));
  const variance = mean(({ seconds }) => (seconds - middle) ** 2);
  return ((covariance / variance) * 60) / level;
}

/** Figures of one subject over all its rounds. */
export type Figures = {
  rate: number;
  cpuMicroseconds: number;
  // NaN without a PostgreSQL, a proxy or a simulator that was watched.
  postgresMicroseconds: number;
  proxyMicroseconds: number;
  /** CPU of all processes that serve: the server's, PostgreSQL's and a proxy's. */
  servingMicroseconds: number;
  generatorMicroseconds: number;
  p50Ms: number;
  p99Ms: number;
  p999Ms: number;
  rssPeakBytes: number;
  putsPerMillion: number;
  rounds: number;
};

export function figuresOf(results: StageResult[]): Figures {
  const over = (read: (result: StageResult) => number) => median(results.map(read));
  return {
    rate: over(rateOf),
    cpuMicroseconds: over((result) => per(result.usage.serverCpuSeconds, result)),
    postgresMicroseconds: over((result) =>
      per(result.usage.postgresCpuSeconds ?? Number.NaN, result),
    ),
    proxyMicroseconds: over((result) => per(result.usage.proxyCpuSeconds ?? Number.NaN, result)),
    servingMicroseconds: over(servingMicroseconds),
    generatorMicroseconds: over((result) => per(result.usage.generatorCpuSeconds, result)),
    p50Ms: over(({ latency }) => latency.p50Ms),
    p99Ms: over(({ latency }) => latency.p99Ms),
    p999Ms: over(({ latency }) => latency.p999Ms),
    // The highest of all rounds, because a memory limit must hold in each.
    rssPeakBytes: Math.max(...results.map(({ usage }) => usage.rssPeakBytes)),
    putsPerMillion: over((result) => putsPerMillion(result) ?? Number.NaN),
    rounds: results.length,
  };
}

/** Returns microseconds per acknowledged request. */
function per(seconds: number, { acknowledged }: StageResult): number {
  return (seconds / acknowledged) * 1e6;
}

function servingMicroseconds(result: StageResult): number {
  const { serverCpuSeconds, postgresCpuSeconds = 0, proxyCpuSeconds = 0 } = result.usage;
  return per(serverCpuSeconds + postgresCpuSeconds + proxyCpuSeconds, result);
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
