import type { StageResult } from "../load/plan.ts";
import { count, microseconds, mib, ms, percent, perSecond } from "../report/units.ts";
import { figuresOf, rateOf } from "../stats.ts";
import type { IngestParameters } from "./ingest-parameters.ts";
import { batchWork, type Context, measureStage, measureStages } from "./measure.ts";

/** Measures goodput beyond saturation of the CPU, where it must not collapse. */
export async function measureCurve(context: Context<IngestParameters>): Promise<void> {
  const { harness, parameters } = context;
  const { factors, warmupSeconds, seconds } = parameters.curve;
  await using store = await harness.stores.open("files");
  await using subject = await harness.startFloodgate(store);
  const work = batchWork(subject, parameters.batchBytes);
  const common = { phase: "curve", subject, store, work };
  const saturated = await measureStage(context, {
    ...common,
    name: "saturation",
    connections: parameters.connections,
    stage: { name: "saturation", warmupSeconds: parameters.warmupSeconds, seconds },
  });
  const capacity = rateOf(saturated);
  // Beyond saturation more clients wait at the same time, as they would in production.
  const connectionsAt = (factor: number) =>
    Math.round(parameters.connections * Math.max(factor, 1));
  const results = await measureStages(context, {
    ...common,
    name: `${factors[0]}× to ${factors.at(-1)}×`,
    connections: connectionsAt(Math.max(...factors)),
    stages: factors.map((factor) => ({
      name: `${factor}×`,
      rate: Math.round(capacity * factor),
      connections: connectionsAt(factor),
      warmupSeconds,
      seconds,
    })),
  });
  report(context, capacity, results);
}

const COLUMNS = [
  "",
  "connections",
  "arriving",
  "goodput",
  "to saturation",
  "refused",
  "CPU/batch",
  "p50",
  "p99",
  "peak RSS",
];

function report(
  { findings }: Context<IngestParameters>,
  capacity: number,
  results: StageResult[],
): void {
  findings.section(
    `CPU overload: arrivals as multiples of saturation (${perSecond(capacity)}), files`,
    COLUMNS,
    results.map((result) => [
      result.name,
      count(result.connections),
      perSecond(result.rate ?? 0),
      perSecond(rateOf(result)),
      percent(rateOf(result) / capacity),
      perSecond(result.refused / result.seconds),
      microseconds(figuresOf([result]).cpuMicroseconds),
      ms(result.latency.p50Ms),
      ms(result.latency.p99Ms),
      mib(result.usage.rssPeakBytes),
    ]),
    "Latency counts from the intended start, so beyond 1× it shows the queue in front of the server.",
  );
  const points = (read: (result: StageResult) => number) =>
    results.map((result) => ({ x: result.rate ?? 0, y: read(result) }));
  findings.charts.push({
    kind: "lines",
    title: "CPU overload on files, per second",
    xLabel: "arrivals per second",
    series: [
      { series: "files", label: "acknowledged", points: points(rateOf) },
      {
        series: "refused",
        label: "refused",
        points: points(({ refused, seconds }) => refused / seconds),
      },
    ],
  });
}
