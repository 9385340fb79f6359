import type { StageResult } from "../load/plan.ts";
import { count, mib, ms, or, percent, perSecond } from "../report/units.ts";
import { rateOf } from "../stats.ts";
import type { IngestParameters } from "./ingest-parameters.ts";
import { batchWork, type Context, measureStage } from "./measure.ts";

const RSS_BYTES_MAX = 200 * 2 ** 20;
const GOODPUT_MIN = 0.9;
const REFUSAL_MS_MAX = 50;

/**
 * Measures three times the load that the object store can take: goodput must stay, and the rest
 * must be refused quickly.
 */
export async function measureOverload(context: Context<IngestParameters>): Promise<void> {
  const { harness, parameters } = context;
  const { overload, batchBytes } = parameters;
  const { warmupSeconds, seconds, factor, putsPerSecond, commitBytes, inflightBytesMax } = overload;
  // Always the simulator: a real server's limit cannot be set.
  await using store = await harness.stores.openSimulator({ p50Ms: 30, p99Ms: 30, putsPerSecond });
  await using subject = await harness.startFloodgate(store, {
    COMMIT_BYTES: String(commitBytes),
    INFLIGHT_BYTES_MAX: String(inflightBytesMax),
  });
  const common = { phase: "overload", subject, store, work: batchWork(subject, batchBytes) };
  const peak = await measureStage(context, {
    ...common,
    name: "at capacity",
    connections: overload.peakConnections,
    stage: { name: "at capacity", warmupSeconds, seconds },
  });
  // Batches per second at the store's limit, if every segment is full.
  const capacity = putsPerSecond * Math.floor(commitBytes / batchBytes);
  const name = `${factor} times the capacity`;
  const over = await measureStage(context, {
    ...common,
    name,
    connections: overload.connections,
    stage: { name, rate: capacity * factor, warmupSeconds, seconds },
  });
  report(context, capacity, peak, over);
}

const COLUMNS = [
  "",
  "arriving",
  "goodput",
  "refused",
  "p50",
  "p99",
  "refusal p50",
  "refusal p99",
  "peak RSS",
  "unsent",
];

function report(
  context: Context<IngestParameters>,
  capacity: number,
  peak: StageResult,
  over: StageResult,
): void {
  const { findings, parameters } = context;
  const { putsPerSecond, commitBytes, inflightBytesMax, factor } = parameters.overload;
  findings.section(
    `Store overload: simulator limited to ${putsPerSecond} PUTs/s, segments of ${mib(commitBytes)}, at most ${mib(inflightBytesMax)} in flight: ${perSecond(capacity)} at best`,
    COLUMNS,
    [row("at capacity", peak), row(`${factor} times the capacity`, over)],
    "unsent: arrivals without a free connection, because accepted requests occupy them.",
    `The generator's own timer was late by ${ms(over.lag.p99Ms)} at p99, ${ms(over.lag.maxMs)} at most.`,
  );
  findings.charts.push({
    kind: "lines",
    title: "Store overload on the S3 simulator, acknowledged per second",
    xLabel: "second",
    series: [
      { series: "s3", label: "at capacity", points: perSecondOf(peak) },
      { series: "overload", label: `${factor} times the capacity`, points: perSecondOf(over) },
    ],
  });
  const goodput = rateOf(over) / rateOf(peak);
  const rssLimit = RSS_BYTES_MAX + inflightBytesMax;
  findings.atLeast(`goodput at ${factor}× the store's capacity`, goodput, GOODPUT_MIN, percent);
  // A run without refusals fails: three times the load cannot all have been accepted.
  findings.atMost(
    "refusal p99",
    over.refusal.count > 0 ? over.refusal.p99Ms : Number.NaN,
    REFUSAL_MS_MAX,
    ms,
  );
  findings.atMost("refusals without Retry-After", over.refusedWithoutRetryAfter, 0, count);
  findings.atMost("peak RSS in overload", over.usage.rssPeakBytes, rssLimit, mib);
}

/** Returns the acknowledgements in each second of the window. */
function perSecondOf({ perSecond: counts }: StageResult) {
  return counts.map((y, x) => ({ x: x + 1, y }));
}

function row(name: string, result: StageResult): string[] {
  return [
    name,
    result.rate === undefined ? "all busy" : perSecond(result.rate),
    perSecond(rateOf(result)),
    perSecond(result.refused / result.seconds),
    ms(result.latency.p50Ms),
    ms(result.latency.p99Ms),
    or(result.refusal.count > 0 ? result.refusal.p50Ms : undefined, ms),
    or(result.refusal.count > 0 ? result.refusal.p99Ms : undefined, ms),
    mib(result.usage.rssPeakBytes),
    count(result.unsent),
  ];
}
