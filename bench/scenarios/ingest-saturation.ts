import type { Harness, Subject } from "../harness.ts";
import type { StageResult } from "../load/plan.ts";
import { barsOf, type Limits, limitTimes } from "../report/findings.ts";
import { count, microseconds, mib, ms, or, perSecond, times } from "../report/units.ts";
import { type Figures, figuresOf } from "../stats.ts";
import type { Store, StoreKind } from "../stores.ts";
import type { IngestParameters } from "./ingest-parameters.ts";
import { alternating, type Context } from "./measure.ts";
import { saturate } from "./saturate.ts";

const RSS_BYTES_MAX = 256 * 2 ** 20;
const ONE_PUT_TIMES_MIN = 20;
/** Targets of CPU per batch and of the rate, to the floor's. */
const FLOOR_TIMES = {
  files: { cpuMax: 2.7, rateMin: 0.33 },
  simulator: { cpuMax: 3.6, rateMin: 0.25 },
  /** Slower servers than the simulator are limited by themselves. */
  otherS3: { cpuMax: 4.5, rateMin: undefined },
};

type Contender = {
  name: string;
  store: StoreKind | undefined;
  /** Absent for Floodgate. */
  start?: (harness: Harness, store: Store) => Promise<Subject>;
  /** Has no target; one round is enough. */
  extra?: boolean;
};

const CONTENDERS = {
  floor: {
    name: "floor (read the body, answer)",
    store: undefined,
    start: async (harness) => harness.startFloor(),
  },
  files: { name: "Floodgate", store: "files" },
  s3: { name: "Floodgate", store: "s3" },
  onePut: {
    name: "one PUT per batch",
    store: "s3",
    start: async (harness, store) => harness.startOnePut(store, "default"),
  },
  onePutTuned: {
    name: "one PUT per batch, tuned",
    store: "s3",
    extra: true,
    start: async (harness, store) => harness.startOnePut(store, "tuned"),
  },
} as const satisfies Record<string, Contender>;

type Name = keyof typeof CONTENDERS;
const NAMES: Name[] = ["floor", "files", "s3", "onePut", "onePutTuned"];

type Measured = { series: Name; label: string; figures: Figures };

/** Measures the cost of a batch and the highest rate, with every connection always busy. */
export async function measureSaturation(context: Context<IngestParameters>): Promise<void> {
  const { harness, parameters } = context;
  const { rounds, extras, baselines } = parameters;
  const results = new Map<Name, StageResult[]>();
  for (const [round, name] of alternating(rounds, NAMES)) {
    const contender: Contender = CONTENDERS[name];
    if (contender.extra === true && (round > 1 || !extras)) continue;
    if (contender.start !== undefined && !baselines) continue;
    const result = await saturate(context, { phase: "saturation", round, ...contender });
    results.set(name, [...(results.get(name) ?? []), result]);
  }
  const measured = NAMES.filter((name) => results.has(name)).map((series) => {
    const { name, store } = CONTENDERS[series];
    const label = store === undefined ? name : `${name}, ${harness.stores.label(store)}`;
    return { series, label, figures: figuresOf(results.get(series) ?? []) };
  });
  report(context, measured);
}

function report(context: Context<IngestParameters>, measured: Measured[]): void {
  const { findings, parameters, harness } = context;
  const { connections, batchBytes, rounds, putsPerSecond } = parameters;
  const floor = measured.find(({ series }) => series === "floor")?.figures ?? figuresOf([]);
  const limit = putsPerSecond === 0 ? "no limit on PUTs" : `at most ${putsPerSecond} PUTs/s`;
  findings.section(
    `Saturation: ${connections} connections always busy, ${batchBytes} bytes a batch, median of ${rounds}`,
    COLUMNS,
    measured.map(({ label, figures }) => row(label, figures, floor)),
    harness.options.s3 === undefined
      ? `The S3 simulator has a latency curve: p50 30 ms, p99 400 ms; ${limit}.`
      : "The S3 server is a real one.",
    "CPU is that of the server process; PostgreSQL's has its own column.",
    `The load generator used ${microseconds(floor.generatorMicroseconds)} of CPU per request against the floor.`,
  );
  const limits = judge(context, measured, floor);
  findings.charts.push(
    barsOf(
      "Acknowledged batches at saturation",
      perSecond,
      measured,
      ({ figures }) => figures.rate,
      limits.rate,
    ),
    barsOf(
      "Server CPU per acknowledged batch",
      microseconds,
      measured,
      ({ figures }) => figures.cpuMicroseconds,
      limits.cpu,
    ),
  );
}

function judge(
  { findings, harness }: Context<IngestParameters>,
  measured: Measured[],
  floor: Figures,
): { cpu: Limits<Measured>; rate: Limits<Measured> } {
  const limits = { cpu: new Map(), rate: new Map() };
  const s3 = harness.options.s3 === undefined ? FLOOR_TIMES.simulator : FLOOR_TIMES.otherS3;
  const onePut = measured.find(({ series }) => series === "onePut")?.figures;
  for (const each of measured) {
    const { series, figures } = each;
    if (series !== "files" && series !== "s3") continue;
    const store = harness.stores.label(series);
    const { cpuMax, rateMin } = series === "files" ? FLOOR_TIMES.files : s3;
    const cpu = figures.cpuMicroseconds / floor.cpuMicroseconds;
    const cpuLimit = findings.atMost(`CPU per batch to the floor's, ${store}`, cpu, cpuMax, times);
    limits.cpu.set(each, limitTimes(cpuLimit, floor.cpuMicroseconds, "the floor"));
    if (rateMin !== undefined) {
      const rate = figures.rate / floor.rate;
      const rateLimit = findings.atLeast(`rate to the floor's, ${store}`, rate, rateMin, times);
      limits.rate.set(each, limitTimes(rateLimit, floor.rate, "the floor"));
    }
    if (series === "s3" && onePut !== undefined) {
      const what = `rate to one PUT per batch, ${store}`;
      findings.atLeast(what, figures.rate / onePut.rate, ONE_PUT_TIMES_MIN, times);
    }
    findings.atMost(`peak RSS at saturation, ${store}`, figures.rssPeakBytes, RSS_BYTES_MAX, mib);
  }
  return limits;
}

const COLUMNS = [
  "",
  "acknowledged",
  "to floor",
  "CPU/batch",
  "to floor",
  "PostgreSQL",
  "p50",
  "p99",
  "p99.9",
  "peak RSS",
  "PUTs/million",
];

function row(name: string, figures: Figures, floor: Figures): string[] {
  return [
    name,
    perSecond(figures.rate),
    times(figures.rate / floor.rate),
    microseconds(figures.cpuMicroseconds),
    times(figures.cpuMicroseconds / floor.cpuMicroseconds),
    or(figures.postgresMicroseconds, microseconds),
    ms(figures.p50Ms),
    ms(figures.p99Ms),
    ms(figures.p999Ms),
    mib(figures.rssPeakBytes),
    or(figures.putsPerMillion, count),
  ];
}
