import { build, type Histogram } from "hdr-histogram-js";

import type { Latency } from "./plan.ts";

const HIGHEST_MICROSECONDS = 300_000_000;

/** Records latencies in microseconds with three significant digits, in constant memory. */
export class LatencyRecorder {
  readonly #histogram: Histogram = build({
    lowestDiscernibleValue: 1,
    highestTrackableValue: HIGHEST_MICROSECONDS,
    numberOfSignificantValueDigits: 3,
    bitBucketSize: 32,
    useWebAssembly: false,
  });

  recordMs(ms: number): void {
    const microseconds = Math.round(ms * 1000);
    this.#histogram.recordValue(Math.min(Math.max(microseconds, 1), HIGHEST_MICROSECONDS));
  }

  reset(): void {
    this.#histogram.reset();
  }

  summary(): Latency {
    const histogram = this.#histogram;
    if (histogram.totalCount === 0)
      return { count: 0, meanMs: 0, p50Ms: 0, p90Ms: 0, p99Ms: 0, p999Ms: 0, maxMs: 0 };
    const atMs = (percentile: number) => histogram.getValueAtPercentile(percentile) / 1000;
    return {
      count: histogram.totalCount,
      meanMs: histogram.mean / 1000,
      p50Ms: atMs(50),
      p90Ms: atMs(90),
      p99Ms: atMs(99),
      p999Ms: atMs(99.9),
      maxMs: histogram.maxValue / 1000,
    };
  }
}
