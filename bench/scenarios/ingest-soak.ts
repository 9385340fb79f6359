import type { StageResult } from "../load/plan.ts";
import { mib, ms, percent, perSecond } from "../report/units.ts";
import { growthPerMinute, rateOf } from "../stats.ts";
import type { IngestParameters } from "./ingest-parameters.ts";
import { batchWork, type Context, measureStage } from "./measure.ts";

/** Measures memory over minutes or hours at a fixed share of the highest rate. */
export async function measureSoak(context: Context<IngestParameters>): Promise<void> {
  const { harness, parameters } = context;
  const { connections, batchBytes, warmupSeconds, seconds, soak } = parameters;
  await using store = await harness.stores.open("s3");
  await using subject = await harness.startFloodgate(store);
  const name = `Floodgate, ${store.label}`;
  const work = batchWork(subject, batchBytes);
  const common = { phase: "soak", name, subject, store, work, connections };
  const saturated = await measureStage(context, {
    ...common,
    stage: { name: "saturation", warmupSeconds, seconds },
  });
  const rate = Math.round(rateOf(saturated) * soak.share);
  const soaked = await measureStage(context, {
    ...common,
    stage: { name: "soak", rate, warmupSeconds, seconds: soak.minutes * 60 },
  });
  report(context, name, store.label, soaked);
}

function report(
  { findings, parameters }: Context<IngestParameters>,
  name: string,
  store: string,
  result: StageResult,
): void {
  const { soak } = parameters;
  const { rssSamples: samples = [], rssPeakBytes } = result.usage;
  const growth = growthPerMinute(samples);
  findings.section(
    `Soak: ${soak.minutes} minutes at ${percent(soak.share)} of the rate at saturation`,
    ["", "arriving", "acknowledged", "p50", "p99", "RSS first", "last", "peak", "growth/minute"],
    [
      [
        name,
        perSecond(result.rate ?? 0),
        perSecond(rateOf(result)),
        ms(result.latency.p50Ms),
        ms(result.latency.p99Ms),
        mib(samples[0]?.bytes ?? Number.NaN),
        mib(samples.at(-1)?.bytes ?? Number.NaN),
        mib(rssPeakBytes),
        percent(growth, 3),
      ],
    ],
    `Growth: slope of the memory after the first quarter, in percent of its mean; ${samples.length} samples.`,
  );
  findings.measurements.push({
    phase: "soak",
    subject: name,
    store,
    round: 1,
    result: { name: "memory", figures: { "growth per minute": growth } },
  });
  findings.charts.push({
    kind: "lines",
    title: "Resident memory during the soak, MiB",
    xLabel: "minute",
    series: [
      {
        series: "s3",
        label: name,
        points: samples.map(({ seconds, bytes }) => ({ x: seconds / 60, y: bytes / 2 ** 20 })),
      },
    ],
  });
}
