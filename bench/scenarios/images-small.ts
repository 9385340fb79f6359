import type { StageResult } from "../load/plan.ts";
import { barsOf } from "../report/findings.ts";
import { count, kib, microseconds, mib, ms, or, perSecond } from "../report/units.ts";
import { figuresOf } from "../stats.ts";
import type { ImagesParameters } from "./images-parameters.ts";
import { type Measured, measureCases, pair } from "./measure-images.ts";
import { type Context, measureStage } from "./measure.ts";

const FILES_CPU_US_MAX = 480;
const S3_RATE_MIN = 900;

/** Measures many small screenshots at full speed. */
export async function measureSmall(context: Context<ImagesParameters>): Promise<void> {
  const { findings, parameters } = context;
  const { rounds } = parameters;
  const { connections, bytes, warmupSeconds, seconds } = parameters.small;
  const measured = await measureCases(
    context,
    "small",
    rounds,
    async (subject, store, name, round) =>
      measureStage(context, {
        phase: "small",
        name,
        round,
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
    `Small: images of ${kib(bytes)}, ${connections} connections always busy, median of ${rounds}`,
    ["", "acknowledged", "CPU/image", "all CPU", "p50", "p99", "p99.9", "peak RSS", "PUTs/1,000"],
    measured.map(({ label, results }) => smallRow(label, results)),
    "All CPU includes PostgreSQL's.",
  );
  const [files] = pair(measured, "files");
  const [s3] = pair(measured, "s3");
  const cpu = findings.atMost(
    `CPU of all processes per small image, ${files.storeLabel}`,
    allCpuOf(files),
    FILES_CPU_US_MAX,
    microseconds,
  );
  const rate = findings.atLeast(
    `small images, ${s3.storeLabel}`,
    rateOf(s3),
    S3_RATE_MIN,
    perSecond,
  );
  findings.charts.push(
    barsOf("Small images acknowledged", perSecond, measured, rateOf, new Map([[s3, rate]])),
    barsOf(
      "CPU of all processes per small image",
      microseconds,
      measured,
      allCpuOf,
      new Map([[files, cpu]]),
    ),
  );
}

function rateOf({ results }: Measured<StageResult>): number {
  return figuresOf(results).rate;
}

function allCpuOf({ results }: Measured<StageResult>): number {
  return figuresOf(results).servingMicroseconds;
}

function smallRow(label: string, results: StageResult[]): string[] {
  const figures = figuresOf(results);
  return [
    label,
    perSecond(figures.rate),
    microseconds(figures.cpuMicroseconds),
    microseconds(figures.servingMicroseconds),
    ms(figures.p50Ms),
    ms(figures.p99Ms),
    ms(figures.p999Ms),
    mib(figures.rssPeakBytes),
    or(figures.putsPerMillion / 1000, count),
  ];
}
