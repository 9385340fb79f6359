import type { Latency, StageResult } from "../load/plan.ts";
import { count, microseconds, mib, ms, or, times } from "../report/units.ts";
import { figuresOf, putsPerMillion } from "../stats.ts";
import { FIXED_CURVE, isSimulated, RECORDED_CURVE } from "../stores.ts";
import type { IngestParameters } from "./ingest-parameters.ts";
import { batchWork, type Context, measureStage, measureStages } from "./measure.ts";
import { probeS3, probeSimulator } from "./put-probe.ts";

const PUTS_PER_MILLION_MAX = 4200;
const COMMIT_INTERVAL_MS = 250;
const IDLE_TIMES_PUT_MAX = 1.2;
// Size of a segment at the steady rate, for whose PUT a batch waits.
const SEGMENT_BYTES = 4 * 2 ** 20;

/** Measures PUTs and latency at a fixed rate below capacity, after the burst of eager PUTs. */
export async function measureSteady(context: Context<IngestParameters>): Promise<void> {
  const { harness, parameters } = context;
  const { rate, spendSeconds, seconds } = parameters.steady;
  await using store = await harness.stores.open("s3", RECORDED_CURVE);
  await using subject = await harness.startFloodgate(store);
  const probed = isSimulated(store) ? undefined : await probeS3(store, SEGMENT_BYTES);
  const [, steady] = await measureStages(context, {
    phase: "steady",
    name: `Floodgate, ${store.label}`,
    subject,
    store,
    work: batchWork(subject, parameters.batchBytes),
    connections: parameters.connections,
    stages: [
      { name: "spend the burst", warmupSeconds: 0, seconds: spendSeconds },
      { name: "steady", rate, warmupSeconds: 1, seconds },
    ],
  });
  if (steady === undefined) throw new Error("steady: no result");
  const put = steady.usage.putLatency ?? probed;
  const source =
    probed === undefined
      ? "as the simulator measured them in the same window"
      : "of 4 MiB, one at a time, before the load";
  reportSteady(context, store.label, steady, put, source);
}

function reportSteady(
  { findings, parameters }: Context<IngestParameters>,
  storeLabel: string,
  steady: StageResult,
  put: Latency | undefined,
  source: string,
): void {
  const figures = figuresOf([steady]);
  const puts = putsPerMillion(steady);
  const title = `${count(parameters.steady.rate)} batches/s on ${storeLabel}`;
  findings.section(
    `Steady: ${title} for ${parameters.steady.seconds} s, after the burst of eager PUTs`,
    ["", "p50", "p90", "p99", "p99.9", "max", "CPU/batch", "peak RSS", "PUTs/million"],
    [
      [
        "acknowledgement, from the intended start",
        ...latencyCells(steady.latency),
        microseconds(figures.cpuMicroseconds),
        mib(figures.rssPeakBytes),
        or(puts, count),
      ],
      ["PUT", ...latencyCells(put), "–", "–", "–"],
    ],
    `${count(put?.count ?? 0)} PUTs ${source}.`,
  );
  if (puts !== undefined)
    findings.atMost("PUTs per million batches, steady", puts, PUTS_PER_MILLION_MAX, count);
  const limitMs = COMMIT_INTERVAL_MS + 1.15 * (put?.p99Ms ?? Number.NaN) + 10;
  const what = "p99 under load: interval + 1.15 × PUT p99 + 10 ms";
  const limit = findings.atMost(what, figures.p99Ms, limitMs, ms);
  findings.charts.push({
    kind: "bars",
    title: `Latency at ${title}`,
    show: ms,
    bars: [
      { series: "s3", label: "acknowledgement p50", value: steady.latency.p50Ms },
      { series: "s3", label: "acknowledgement p99", value: steady.latency.p99Ms, limit },
      { series: "s3", label: "acknowledgement p99.9", value: steady.latency.p999Ms },
      { series: "storePut", label: "PUT p50", value: put?.p50Ms ?? 0 },
      { series: "storePut", label: "PUT p99", value: put?.p99Ms ?? 0 },
    ],
  });
}

/** Measures occasional requests, which should take about one PUT, not a commit interval. */
export async function measureIdle(context: Context<IngestParameters>): Promise<void> {
  const { harness, findings, parameters } = context;
  await using store = await harness.stores.open("s3", FIXED_CURVE);
  const stage = { name: "idle", ...parameters.idle };
  const direct = isSimulated(store)
    ? await probeSimulator(context, store, parameters.batchBytes, stage)
    : await probeS3(store, parameters.batchBytes);
  await using subject = await harness.startFloodgate(store);
  const { latency } = await measureStage(context, {
    phase: "idle",
    name: `Floodgate, ${store.label}`,
    subject,
    store,
    work: batchWork(subject, parameters.batchBytes),
    connections: 2,
    stage,
  });
  const how = isSimulated(store) ? `${store.label}, every PUT 30 ms` : store.label;
  findings.section(
    `Idle: ${parameters.idle.rate} requests a second on ${how}`,
    ["", "requests", "p50", "p90", "p99", "p99.9", "max"],
    [
      ["acknowledgement", count(latency.count), ...latencyCells(latency)],
      ["one PUT without a server", count(direct.count), ...latencyCells(direct)],
    ],
  );
  const ratio = latency.p50Ms / direct.p50Ms;
  findings.atMost("idle acknowledgement p50 to one PUT", ratio, IDLE_TIMES_PUT_MAX, times);
}

function latencyCells(latency: Latency | undefined): string[] {
  if (latency === undefined) return ["–", "–", "–", "–", "–"];
  const { p50Ms, p90Ms, p99Ms, p999Ms, maxMs } = latency;
  return [p50Ms, p90Ms, p99Ms, p999Ms, maxMs].map(ms);
}
