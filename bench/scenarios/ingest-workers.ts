import type { StoreKind } from "../harness.ts";
import type { StageResult } from "../load/plan.ts";
import { microseconds, ms, perSecond, times } from "../report/units.ts";
import { figuresOf } from "../stats.ts";
import type { IngestParameters } from "./ingest-parameters.ts";
import { batchWork, type Context, measureStage } from "./measure.ts";

const CPU_TIMES_MAX = 1.15;

/** Measures `start` with one and with two serving processes on one port, at saturation. */
export async function measureWorkers(context: Context<IngestParameters>): Promise<void> {
  const { findings, parameters } = context;
  for (const kind of ["files", "s3"] as const) {
    const results: StageResult[][] = [[], []];
    let label = "";
    for (let round = 1; round <= parameters.rounds; round++)
      for (const [index, workers] of [1, 2].entries()) {
        const { result, store } = await measureOne(context, kind, workers, round);
        results[index]?.push(result);
        label = store;
      }
    const [one, two] = results.map((of) => figuresOf(of));
    if (one === undefined || two === undefined) throw new Error("workers: no result");
    findings.section(
      `Serving processes of \`start\`, ${label}`,
      ["WORKERS", "acknowledged", "CPU/batch", "p50", "p99"],
      [one, two].map((of, index) => [
        String(index + 1),
        perSecond(of.rate),
        microseconds(of.cpuMicroseconds),
        ms(of.p50Ms),
        ms(of.p99Ms),
      ]),
      "The load generator and PostgreSQL are on the same cores: with two of them a second process adds little to the rate.",
    );
    findings.atMost(
      `CPU per batch, WORKERS=2 to WORKERS=1, ${label}`,
      two.cpuMicroseconds / one.cpuMicroseconds,
      CPU_TIMES_MAX,
      times,
    );
  }
}

async function measureOne(
  context: Context<IngestParameters>,
  kind: StoreKind,
  workers: number,
  round: number,
): Promise<{ result: StageResult; store: string }> {
  const { harness, parameters } = context;
  await using store = await harness.openStore(kind);
  await using subject = await harness.startFloodgate(store, { WORKERS: String(workers) }, "start");
  const result = await measureStage(context, {
    phase: "workers",
    name: `WORKERS=${workers}, ${store.label}`,
    round,
    subject,
    store,
    work: batchWork(subject, parameters.batchBytes),
    connections: parameters.connections,
    stage: {
      name: "saturation",
      warmupSeconds: parameters.warmupSeconds,
      seconds: parameters.seconds,
    },
  });
  return { result, store: store.label };
}
