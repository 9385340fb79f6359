import type { StageResult } from "../load/plan.ts";
import { microseconds, ms, perSecond, times } from "../report/units.ts";
import { figuresOf } from "../stats.ts";
import { STORE_KINDS } from "../stores.ts";
import type { IngestParameters } from "./ingest-parameters.ts";
import { alternating, type Context } from "./measure.ts";
import { saturate, workers } from "./saturate.ts";

const CPU_TIMES_MAX = 1.15;

/** Measures `start` with one and with two serving processes on one port, at saturation. */
export async function measureWorkers(context: Context<IngestParameters>): Promise<void> {
  const { harness, findings, parameters } = context;
  for (const store of STORE_KINDS) {
    const measured = [1, 2].map((count) => ({ count, results: new Array<StageResult>() }));
    for (const [round, { count, results }] of alternating(parameters.rounds, measured)) {
      const about = { phase: "workers", name: `WORKERS=${count}`, round, store };
      results.push(await saturate(context, { ...about, start: workers(count) }));
    }
    const label = harness.stores.label(store);
    findings.section(
      `Serving processes of \`start\`, ${label}`,
      ["WORKERS", "acknowledged", "CPU/batch", "p50", "p99"],
      measured.map(({ count, results }) => {
        const { rate, cpuMicroseconds, p50Ms, p99Ms } = figuresOf(results);
        return [
          String(count),
          perSecond(rate),
          microseconds(cpuMicroseconds),
          ms(p50Ms),
          ms(p99Ms),
        ];
      }),
      "The load generator and PostgreSQL are on the same cores: with two of them a second process adds little to the rate.",
    );
    const [one = Number.NaN, two = Number.NaN] = measured.map(
      ({ results }) => figuresOf(results).cpuMicroseconds,
    );
    const what = `CPU per batch, WORKERS=2 to WORKERS=1, ${label}`;
    findings.atMost(what, two / one, CPU_TIMES_MAX, times);
  }
}
