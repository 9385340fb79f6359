import type { TransferResult } from "../load/plan.ts";
import { barsOf, type Findings, type Limits } from "../report/findings.ts";
import { count, megabytes, mib, ms, or, times } from "../report/units.ts";
import { growthOf, median, peakOf } from "../stats.ts";
import { STORE_KINDS } from "../stores.ts";
import type { ImagesParameters } from "./images-parameters.ts";
import { cpuMsOf, type Measured, measureCases, pair } from "./measure-images.ts";
import { type Context, measureUploads } from "./measure.ts";

const GROWTH_BYTES_MAX = 64 * 2 ** 20;
const CPU_TIMES_MIN = 2;
const BYTES_PER_SECOND_MIN = { files: 600e6, s3: 220e6 };
const FILES_CPU_MS_MAX = 150;

/** Measures the memory and CPU of one image of hundreds of megabytes. */
export async function measureLarge(context: Context<ImagesParameters>): Promise<void> {
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
  findings.section(
    `Large: one image of ${bytes / 1_000_000} MB, median of ${parameters.rounds}`,
    ["", "RSS growth", "peak RSS", "CPU/100 MB", "throughput", "PUTs"],
    measured.map(({ label, results }) => [
      label,
      mib(growthOf(results)),
      mib(peakOf(results)),
      ms(cpuMsOf(results)),
      megabytes(throughputOf(results)),
      or(results[0]?.usage.puts, count),
    ]),
    "RSS growth is the peak during the upload minus the memory before it.",
  );
  judgeLarge(findings, measured);
}

function judgeLarge(findings: Findings, measured: Measured<TransferResult>[]): void {
  const growth: Limits<Measured<TransferResult>> = new Map();
  const throughput: Limits<Measured<TransferResult>> = new Map();
  const cpu: Limits<Measured<TransferResult>> = new Map();
  for (const store of STORE_KINDS) {
    const [ours, theirs] = pair(measured, store);
    const { storeLabel, results } = ours;
    const least = BYTES_PER_SECOND_MIN[store];
    const what = `one large image, ${storeLabel}`;
    growth.set(
      ours,
      findings.atMost(`RSS growth, ${what}`, growthOf(results), GROWTH_BYTES_MAX, mib),
    );
    throughput.set(
      ours,
      findings.atLeast(`throughput, ${what}`, throughputOf(results), least, megabytes),
    );
    if (store === "files")
      cpu.set(ours, findings.atMost(`CPU/100 MB, ${what}`, cpuMsOf(results), FILES_CPU_MS_MAX, ms));
    findings.atLeast(
      `bytes per CPU second to formData(), ${storeLabel}`,
      cpuMsOf(theirs.results) / cpuMsOf(results),
      CPU_TIMES_MIN,
      times,
    );
  }
  findings.charts.push(
    barsOf("RSS growth for one large image", mib, measured, (of) => growthOf(of.results), growth),
    barsOf(
      "Bytes per second, one large image",
      megabytes,
      measured,
      ({ results }) => throughputOf(results),
      throughput,
    ),
    barsOf("CPU per 100 MB, one large image", ms, measured, (of) => cpuMsOf(of.results), cpu),
  );
}

function throughputOf(results: TransferResult[]): number {
  return median(results.map(({ bytes, seconds }) => bytes / seconds));
}
