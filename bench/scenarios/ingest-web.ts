import type { StageResult, WebType } from "../load/plan.ts";
import { buildWebBatch } from "../load/web-batch.ts";
import { barsOf, type Limits, limitTimes } from "../report/findings.ts";
import { kib, microseconds, ms, or, perSecond, times } from "../report/units.ts";
import { type Figures, figuresOf, median } from "../stats.ts";
import type { IngestParameters } from "./ingest-parameters.ts";
import { alternating, type Context } from "./measure.ts";
import { saturate } from "./saturate.ts";
import { measureWalks } from "./walk-frames.ts";

const MIB = 2 ** 20;

type Contender = { name: string; web?: WebType; gzip?: boolean };

type Group = {
  title: string;
  /** Fewer than at saturation: many commits fit into a short window, whose edges then matter less. */
  connections: number;
  contenders: Contender[];
  /** Name of the mobile batch with which those of the web tracker are compared. */
  base: string;
  /** Target of CPU per inflated byte, to that of the base. */
  cpuMax: number;
};

const PLAIN: Group = {
  title: "Batches of the web tracker",
  connections: 256,
  contenders: [
    { name: "mobile" },
    { name: "player", web: "player" },
    { name: "devtools", web: "devtools" },
  ],
  base: "mobile",
  cpuMax: 1.15,
};

const PAGE: Group = {
  title: "A whole page of the web tracker",
  connections: 64,
  contenders: [
    { name: "mobile" },
    { name: "mobile, gzip", gzip: true },
    { name: "visual, gzip", web: "visual", gzip: true },
  ],
  base: "mobile, gzip",
  cpuMax: 1,
};

type Measured = {
  series: "files" | "web";
  label: string;
  isWeb: boolean;
  wireBytes: number;
  figures: Figures;
  /** CPU per MiB without any content coding. */
  perMib: number;
};

/** Measures batches that the web tracker recorded beside mobile ones of the same size. */
export async function measureWeb(context: Context<IngestParameters>): Promise<void> {
  const { batchBytes, baselines, web } = context.parameters;
  await measureGroup(context, PLAIN, batchBytes);
  await measureGroup(context, PAGE, web.pageBytes);
  // The walk is measured in this process, so not that of another checkout.
  if (baselines) measureWalks(context);
}

async function measureGroup(
  context: Context<IngestParameters>,
  group: Group,
  batchBytes: number,
): Promise<void> {
  const { harness, findings, parameters } = context;
  const { warmupSeconds, seconds } = parameters.web;
  const { connections } = group;
  const own = { harness, findings, parameters: { ...parameters, warmupSeconds, seconds } };
  const size = kib(batchBytes);
  const contenders = group.contenders.map((contender) => ({
    ...contender,
    results: new Array<StageResult>(),
  }));
  for (const [round, { results, ...contender }] of alternating(parameters.rounds, contenders)) {
    const about = { phase: "web", round, store: "files" as const, connections, batchBytes };
    results.push(
      await saturate(own, { ...about, ...contender, name: `${contender.name}, ${size}` }),
    );
  }
  const measured = contenders.map(({ name, web, results }) => {
    const bytes = web === undefined ? batchBytes : buildWebBatch(web, batchBytes).bytes.length;
    const figures = figuresOf(results);
    return {
      series: web === undefined ? ("files" as const) : ("web" as const),
      label: name,
      isWeb: web !== undefined,
      wireBytes: median(results.map(({ bodyBytes }) => bodyBytes)),
      figures,
      perMib: (figures.cpuMicroseconds * MIB) / bytes,
    };
  });
  report(context, group, measured, `${connections} connections always busy, ${size} a batch`);
}

function report(
  { findings, harness, parameters }: Context<IngestParameters>,
  { title, base, cpuMax }: Group,
  measured: Measured[],
  load: string,
): void {
  const store = harness.stores.label("files");
  const basePerMib = measured.find(({ label }) => label === base)?.perMib ?? Number.NaN;
  findings.section(
    `${title}: ${load}, ${store}, median of ${parameters.rounds}`,
    [
      "",
      "on the wire",
      "acknowledged",
      "CPU/batch",
      "CPU/MiB",
      `to ${base}`,
      "PostgreSQL",
      "p50",
      "p99",
    ],
    measured.map(({ label, wireBytes, figures, perMib }) => [
      label,
      kib(wireBytes),
      perSecond(figures.rate),
      microseconds(figures.cpuMicroseconds),
      microseconds(perMib),
      times(perMib / basePerMib),
      or(figures.postgresMicroseconds, microseconds),
      ms(figures.p50Ms),
      ms(figures.p99Ms),
    ]),
    "CPU per MiB and the ratios refer to what the bodies are without gzip.",
  );
  const limits: Limits<Measured> = new Map();
  for (const each of measured.filter(({ isWeb }) => isWeb)) {
    const what = `CPU per inflated byte, ${each.label} to ${base}`;
    const limit = findings.atMost(what, each.perMib / basePerMib, cpuMax, times);
    limits.set(each, limitTimes(limit, basePerMib, base));
  }
  findings.charts.push(
    barsOf(`CPU per MiB: ${title}`, microseconds, measured, ({ perMib }) => perMib, limits),
  );
}
