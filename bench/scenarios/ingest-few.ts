import type { StageResult } from "../load/plan.ts";
import { count, microseconds, ms, or, perSecond } from "../report/units.ts";
import { figuresOf } from "../stats.ts";
import type { IngestParameters } from "./ingest-parameters.ts";
import { alternating, type Context } from "./measure.ts";
import { saturate } from "./saturate.ts";

const P50_MS_MAX = 100;
/** Connections below which the target of the p50 holds. */
const CONNECTIONS_MAX = 270;

/** Measures few busy connections, which cannot fill a segment and wait for its PUT. */
export async function measureFew(context: Context<IngestParameters>): Promise<void> {
  const { harness, findings, parameters } = context;
  const measured = parameters.few.map((connections) => ({
    connections,
    results: new Array<StageResult>(),
  }));
  for (const [round, { connections, results }] of alternating(parameters.rounds, measured)) {
    const name = `${connections} connections`;
    const about = { phase: "few", name, round, store: "s3" as const, connections };
    results.push(await saturate(context, about));
  }
  const label = harness.stores.label("s3");
  const rows = measured.map(({ connections, results }) => ({
    connections,
    figures: figuresOf(results),
  }));
  findings.section(
    `Few connections, always busy, ${label}, median of ${parameters.rounds}`,
    ["connections", "acknowledged", "CPU/batch", "p50", "p99", "PUTs/million"],
    rows.map(({ connections, figures }) => [
      count(connections),
      perSecond(figures.rate),
      microseconds(figures.cpuMicroseconds),
      ms(figures.p50Ms),
      ms(figures.p99Ms),
      or(figures.putsPerMillion, count),
    ]),
  );
  const limits = rows
    .filter(({ connections }) => connections < CONNECTIONS_MAX)
    .map(({ connections, figures }) =>
      findings.atMost(`p50 of ${connections} connections, ${label}`, figures.p50Ms, P50_MS_MAX, ms),
    );
  const points = (read: (row: (typeof rows)[number]) => number) =>
    rows.map((row) => ({ x: row.connections, y: read(row) }));
  const common = { kind: "lines" as const, xLabel: "connections", logarithmic: true };
  const series = { series: "s3" as const, label: `Floodgate, ${label}` };
  findings.charts.push(
    {
      ...common,
      title: "p50 of few connections, ms",
      series: [{ ...series, points: points(({ figures }) => figures.p50Ms) }],
      limit: limits[0] && {
        ...limits[0],
        label: `${limits[0].label} below ${CONNECTIONS_MAX} connections`,
      },
    },
    {
      ...common,
      title: "Acknowledged batches per second of few connections",
      series: [{ ...series, points: points(({ figures }) => figures.rate) }],
    },
  );
}
