import {
  type Harness,
  RECORDED_CURVE,
  type Store,
  type StoreKind,
  type Subject,
} from "../harness.ts";
import type { StageResult } from "../load/plan.ts";
import { count, microseconds, mib, ms, or, perSecond, times } from "../report/units.ts";
import { type Figures, figuresOf } from "../stats.ts";
import type { IngestParameters } from "./ingest-parameters.ts";
import { batchWork, type Context, measureStage } from "./measure.ts";

const MIB = 2 ** 20;
const RSS_BYTES_MAX = 200 * MIB;

type Contender = {
  name: string;
  store: StoreKind | undefined;
  /** Has no target; one round is enough. */
  extra?: boolean;
  start(harness: Harness, store: Store): Promise<Subject>;
};

const CONTENDERS = {
  floor: {
    name: "floor (drain, answer)",
    store: undefined,
    start: async (harness) => harness.startFloor("drain"),
  },
  buffered: {
    name: "floor, body in one piece",
    store: undefined,
    extra: true,
    start: async (harness) => harness.startFloor("buffer"),
  },
  files: {
    name: "Floodgate",
    store: "files",
    start: async (harness, store) => harness.startFloodgate(store),
  },
  s3: {
    name: "Floodgate",
    store: "s3",
    start: async (harness, store) => harness.startFloodgate(store),
  },
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
} satisfies Record<string, Contender>;

type Name = keyof typeof CONTENDERS;
const NAMES: Name[] = ["floor", "buffered", "files", "s3", "onePut", "onePutTuned"];

type Results = Record<Name, StageResult[]>;

/** Measures the cost of a batch and the highest rate, with every connection always busy. */
export async function measureSaturation(context: Context<IngestParameters>): Promise<void> {
  const { rounds, extras } = context.parameters;
  const results: Results = {
    floor: [],
    buffered: [],
    files: [],
    s3: [],
    onePut: [],
    onePutTuned: [],
  };
  for (let round = 1; round <= rounds; round++) {
    // Reverses the order every second round, so that a machine that warms up favours no subject.
    for (const name of round % 2 === 1 ? NAMES : NAMES.toReversed()) {
      const contender: Contender = CONTENDERS[name];
      if (contender.extra && (round > 1 || !extras)) continue;
      results[name].push(await measureContender(context, contender, round));
    }
  }
  report(context, results);
  judge(context, results);
}

async function measureContender(
  context: Context<IngestParameters>,
  contender: Contender,
  round: number,
): Promise<StageResult> {
  const { harness, parameters } = context;
  await using store = await harness.openStore(contender.store ?? "files", {
    ...RECORDED_CURVE,
    putsPerSecond: parameters.putsPerSecond,
  });
  await using subject = await contender.start(harness, store);
  const { warmupSeconds, seconds, connections, batchBytes } = parameters;
  // Awaited here, because the subject must run until there is a result.
  return await measureStage(context, {
    phase: "saturation",
    name: labelOf(harness, contender),
    round,
    subject,
    store: contender.store === undefined ? undefined : store,
    work: batchWork(subject, batchBytes),
    connections,
    stage: { name: "saturation", warmupSeconds, seconds },
  });
}

function limitOf({ putsPerSecond }: IngestParameters): string {
  return putsPerSecond === 0 ? "no limit on PUTs" : `at most ${putsPerSecond} PUTs/s`;
}

function labelOf(harness: Harness, { name, store }: Contender): string {
  return store === undefined ? name : `${name}, ${harness.storeLabel(store)}`;
}

function report(
  { findings, parameters, harness }: Context<IngestParameters>,
  results: Results,
): void {
  const { connections, batchBytes, rounds } = parameters;
  const floor = figuresOf(results.floor);
  const shown = NAMES.filter((name) => results[name].length > 0).map((name) => ({
    label: labelOf(harness, CONTENDERS[name]),
    figures: figuresOf(results[name]),
  }));
  findings.section(
    `Saturation: ${connections} connections always busy, ${batchBytes} bytes a batch, median of ${rounds}`,
    COLUMNS,
    shown.map(({ label, figures }) => row(label, figures, floor)),
    harness.options.s3 === undefined
      ? `The S3 simulator has a latency curve: p50 30 ms, p99 400 ms; ${limitOf(parameters)}.`
      : "The S3 server is a real one.",
    "CPU is that of the server process; PostgreSQL's has its own column.",
    `The load generator used ${microseconds(floor.generatorMicroseconds)} of CPU per request against the floor.`,
  );
  findings.charts.push(
    {
      kind: "bars",
      title: "Acknowledged batches per second at saturation",
      bars: shown.map(({ label, figures }) => ({ label, value: figures.rate })),
    },
    {
      kind: "bars",
      title: "Server CPU per acknowledged batch, µs",
      bars: shown.map(({ label, figures }) => ({ label, value: figures.cpuMicroseconds })),
    },
  );
}

function judge(
  { findings, parameters, harness }: Context<IngestParameters>,
  results: Results,
): void {
  const floor = figuresOf(results.floor);
  const files = figuresOf(results.files);
  const s3 = figuresOf(results.s3);
  const onePut = figuresOf(results.onePut);
  const label = harness.storeLabel("s3");
  const rssLimit = RSS_BYTES_MAX + parameters.connections * parameters.batchBytes;
  const cpuTimes = (each: Figures) => each.cpuMicroseconds / floor.cpuMicroseconds;
  findings.atMost("CPU per batch to the floor's, files", cpuTimes(files), 4, times);
  findings.atMost(`CPU per batch to the floor's, ${label}`, cpuTimes(s3), 6, times);
  findings.atLeast("rate to the floor's, files", files.rate / floor.rate, 0.25, times);
  findings.atLeast(`rate to the floor's, ${label}`, s3.rate / floor.rate, 0.15, times);
  findings.atLeast(`rate to one PUT per batch, ${label}`, s3.rate / onePut.rate, 20, times);
  findings.atMost("peak RSS at saturation, files", files.rssPeakBytes, rssLimit, mib);
  findings.atMost(`peak RSS at saturation, ${label}`, s3.rssPeakBytes, rssLimit, mib);
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
