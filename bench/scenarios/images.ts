import type { Harness, Store, StoreKind, Subject } from "../harness.ts";
import type { StageResult, TransferResult } from "../load/plan.ts";
import type { Options } from "../options.ts";
import type { Findings } from "../report/findings.ts";
import { count, kib, mib, microseconds, ms, or, perSecond, times } from "../report/units.ts";
import { figuresOf, growthOf, median, peakOf } from "../stats.ts";
import { type ImagesParameters, imagesParameters } from "./images-parameters.ts";
import { type Context, measureStage, measureUploads } from "./measure.ts";

const MIB = 2 ** 20;
const LARGE_GROWTH_BYTES_MAX = 64 * MIB;
const SLOW_GROWTH_BYTES_MAX = 192 * 1024;
const CPU_TIMES_MIN = 2;

const PHASES: Record<string, (context: Context<ImagesParameters>) => Promise<void>> = {
  large: measureLarge,
  slow: measureSlow,
  small: measureSmall,
};

export const imagesPhases = Object.keys(PHASES);

/** Measures multipart images: one huge, many slow, and many small ones. */
export async function runImages(
  harness: Harness,
  findings: Findings,
  options: Options,
): Promise<ImagesParameters> {
  const parameters = imagesParameters(options);
  for (const phase of options.phases) await PHASES[phase]?.({ harness, findings, parameters });
  return parameters;
}

type Case = { name: string; store: StoreKind; ours: boolean };

const CASES: Case[] = [
  { name: "Floodgate", store: "files", ours: true },
  { name: "formData()", store: "files", ours: false },
  { name: "Floodgate", store: "s3", ours: true },
  { name: "formData()", store: "s3", ours: false },
];

type Measured<Result> = Case & { storeLabel: string; label: string; results: Result[] };

/** Measures each case on a fresh, warmed-up process, in alternating order. */
async function measureCases<Result>(
  context: Context<ImagesParameters>,
  phase: string,
  rounds: number,
  measure: (subject: Subject, store: Store, name: string, round: number) => Promise<Result>,
): Promise<Measured<Result>[]> {
  const { harness, parameters } = context;
  const measured = CASES.map((each) => ({
    ...each,
    storeLabel: harness.storeLabel(each.store),
    label: `${each.name}, ${harness.storeLabel(each.store)}`,
    results: new Array<Result>(),
  }));
  for (let round = 1; round <= rounds; round++)
    for (const each of round % 2 === 1 ? measured : measured.toReversed()) {
      await using store = await harness.openStore(each.store);
      const limit = { FILE_SIZE_LIMIT: String(2 * parameters.large.bytes) };
      await using subject = each.ours
        ? await harness.startFloodgate(store, limit)
        : await harness.startFormData(store);
      const { uploads: connections, bytes } = parameters.warmup;
      const about = { phase, name: each.label, subject, store, connections, bytes };
      await measureUploads(context, about, false);
      each.results.push(await measure(subject, store, each.label, round));
    }
  return measured;
}

/** Measures the memory and CPU of one image of hundreds of megabytes. */
async function measureLarge(context: Context<ImagesParameters>): Promise<void> {
  const { findings, parameters } = context;
  const { bytes } = parameters.large;
  const measured = await measureCases(
    context,
    "large",
    parameters.rounds,
    async (subject, store, name, round) =>
      measureUploads(context, {
        phase: "large",
        name,
        round,
        subject,
        store,
        connections: 1,
        bytes,
      }),
  );
  const rows = measured.map(({ label, results }) => {
    const rate = median(results.map((result) => result.bytes / result.seconds));
    const puts = results[0]?.usage.puts;
    return [
      label,
      mib(growthOf(results)),
      mib(peakOf(results)),
      `${mib(bytesPerCpuSecond(results))}/s`,
      `${mib(rate)}/s`,
      or(puts, count),
    ];
  });
  findings.section(
    `Large: one image of ${bytes / 1_000_000} MB, median of ${parameters.rounds}`,
    ["", "RSS growth", "peak RSS", "per CPU second", "throughput", "PUTs"],
    rows,
    "RSS growth is the peak during the upload minus the memory before it.",
  );
  for (const store of ["files", "s3"]) {
    const [ours, theirs] = pair(measured, store);
    const growth = growthOf(ours.results);
    const ratio = bytesPerCpuSecond(ours.results) / bytesPerCpuSecond(theirs.results);
    findings.atMost(
      `RSS growth, one large image, ${ours.storeLabel}`,
      growth,
      LARGE_GROWTH_BYTES_MAX,
      mib,
    );
    findings.atLeast(
      `bytes per CPU second to formData(), ${ours.storeLabel}`,
      ratio,
      CPU_TIMES_MIN,
      times,
    );
  }
  findings.charts.push(
    barsOf("RSS growth for one large image, MiB", measured, (results) => growthOf(results) / MIB),
    barsOf(
      "MiB per CPU second, one large image",
      measured,
      (each) => bytesPerCpuSecond(each) / MIB,
    ),
  );
}

/** Measures the memory of hundreds of uploads from slow networks. */
async function measureSlow(context: Context<ImagesParameters>): Promise<void> {
  const { findings, parameters } = context;
  const { connections, bytesPerSecond, seconds } = parameters.slow;
  const bytes = bytesPerSecond * seconds;
  const measured = await measureCases(context, "slow", 1, async (subject, store, name) =>
    measureUploads(context, {
      phase: "slow",
      name,
      subject,
      store,
      connections,
      bytes,
      bytesPerSecond,
    }),
  );
  const perConnection = (results: TransferResult[]) => growthOf(results) / connections;
  findings.section(
    `Slow: ${connections} uploads at ${kib(bytesPerSecond)}/s each for ${seconds} s`,
    ["", "RSS growth", "per connection", "peak RSS", "per CPU second", "PUTs"],
    measured.map(({ label, results }) => [
      label,
      mib(growthOf(results)),
      kib(perConnection(results)),
      mib(peakOf(results)),
      `${mib(bytesPerCpuSecond(results))}/s`,
      or(results[0]?.usage.puts, count),
    ]),
  );
  for (const { storeLabel, ours, results } of measured)
    if (ours)
      findings.atMost(
        `RSS growth per slow upload, ${storeLabel}`,
        perConnection(results),
        SLOW_GROWTH_BYTES_MAX,
        kib,
      );
  findings.charts.push(
    barsOf("RSS growth per slow upload, KiB", measured, (each) => perConnection(each) / 1024),
  );
}

/** Measures many small screenshots at full speed. */
async function measureSmall(context: Context<ImagesParameters>): Promise<void> {
  const { findings, parameters } = context;
  const { connections, bytes, warmupSeconds, seconds } = parameters.small;
  const measured = await measureCases(context, "small", 1, async (subject, store, name) =>
    measureStage(context, {
      phase: "small",
      name,
      subject,
      store,
      work: {
        kind: "image",
        bytes,
        projectID: subject.projectID,
        ...(subject.projectKey !== undefined && { projectKey: subject.projectKey }),
      },
      connections,
      stage: { name: "saturation", warmupSeconds, seconds },
    }),
  );
  findings.section(
    `Small: images of ${kib(bytes)}, ${connections} connections always busy`,
    ["", "acknowledged", "CPU/image", "p50", "p99", "p99.9", "peak RSS", "PUTs/1,000"],
    measured.map(({ label, results }) => smallRow(label, results)),
  );
  findings.charts.push(
    barsOf("Small images acknowledged per second", measured, (each) => figuresOf(each).rate),
  );
}

function smallRow(label: string, results: StageResult[]): string[] {
  const figures = figuresOf(results);
  const puts = figures.putsPerMillion;
  return [
    label,
    perSecond(figures.rate),
    microseconds(figures.cpuMicroseconds),
    ms(figures.p50Ms),
    ms(figures.p99Ms),
    ms(figures.p999Ms),
    mib(figures.rssPeakBytes),
    or(puts === undefined ? undefined : puts / 1000, count),
  ];
}

function barsOf<Result>(
  title: string,
  measured: Measured<Result>[],
  value: (results: Result[]) => number,
) {
  const bars = measured.map(({ label, results }) => ({ label, value: value(results) }));
  return { kind: "bars" as const, title, bars };
}

function pair<Result>(measured: Measured<Result>[], store: string) {
  const ours = measured.find((each) => each.store === store && each.ours);
  const theirs = measured.find((each) => each.store === store && !each.ours);
  if (ours === undefined || theirs === undefined) throw new Error(`no measurements on ${store}`);
  return [ours, theirs] as const;
}

function bytesPerCpuSecond(results: TransferResult[]): number {
  return median(results.map(({ bytes, usage }) => bytes / usage.serverCpuSeconds));
}
