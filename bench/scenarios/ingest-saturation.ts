import type { Harness, Store, StoreKind, Subject } from "../harness.ts";
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
  /** For information beside the others; one round is enough. */
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
    name: "Floodgate, files",
    store: "files",
    start: async (harness, store) => harness.startFloodgate(store),
  },
  s3: {
    name: "Floodgate, S3",
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

/** Every connection always busy: what a batch costs, and how many there can be. */
export async function measureSaturation(context: Context<IngestParameters>): Promise<void> {
  const results = new Map<Name, StageResult[]>(NAMES.map((name) => [name, []]));
  for (let round = 1; round <= context.parameters.rounds; round++) {
    // The other way round every second time, so that a machine that warms up or slows down favours none.
    for (const name of round % 2 === 1 ? NAMES : NAMES.toReversed()) {
      const contender: Contender = CONTENDERS[name];
      if (contender.extra && (round > 1 || !context.parameters.extras)) continue;
      results.get(name)?.push(await measureContender(context, contender, round));
    }
  }
  report(context, new Map([...results].map(([name, each]) => [name, figuresOf(each)])));
}

async function measureContender(
  context: Context<IngestParameters>,
  contender: Contender,
  round: number,
): Promise<StageResult> {
  const { harness, parameters } = context;
  await using store = await harness.openStore(contender.store ?? "files");
  await using subject = await contender.start(harness, store);
  const { warmupSeconds, seconds, connections, batchBytes } = parameters;
  // Awaited here: the subject must live until there is a result.
  return await measureStage(context, {
    phase: "saturation",
    name: contender.name,
    round,
    subject,
    store: contender.store === undefined ? undefined : store,
    work: batchWork(subject, batchBytes),
    connections,
    stage: { name: "saturation", warmupSeconds, seconds },
  });
}

function report(context: Context<IngestParameters>, figuresFor: (name: Name) => Figures): void {
  const { findings, parameters, harness } = context;
  const { connections, batchBytes } = parameters;
  const floor = figuresFor("floor");
  const storeLabel = harness.options.s3 === undefined ? "S3 simulator" : "S3";
  const rows = NAMES.map((name) => row(CONTENDERS[name].name, figuresFor(name), floor));
  findings.section(
    `Saturation: ${connections} connections always busy, ${batchBytes} bytes a batch, ${parameters.rounds} rounds`,
    COLUMNS,
    rows,
    `S3 is ${storeLabel === "S3" ? "a real server" : "a SIMULATOR with a latency curve (p50 30 ms, p99 400 ms)"}; CPU is the server process's own, PostgreSQL's apart.`,
    `The load generator took ${microseconds(floor.generatorMicroseconds)} of CPU per request against the floor.`,
  );
  judge(context, figuresFor, storeLabel);
  findings.charts.push(
    {
      kind: "bars",
      title: "Acknowledged batches per second at saturation",
      bars: NAMES.map((name) => ({ label: CONTENDERS[name].name, value: figuresFor(name).rate })),
    },
    {
      kind: "bars",
      title: "Server CPU per acknowledged batch, µs",
      bars: NAMES.map((name) => ({
        label: CONTENDERS[name].name,
        value: figuresFor(name).cpuMicroseconds,
      })),
    },
  );
}

function judge(
  { findings, parameters }: Context<IngestParameters>,
  figuresFor: (name: Name) => Figures,
  storeLabel: string,
): void {
  const floor = figuresFor("floor");
  const [files, s3, onePut] = [figuresFor("files"), figuresFor("s3"), figuresFor("onePut")];
  const inFlight = parameters.connections * parameters.batchBytes;
  const cpu = (each: Figures) => each.cpuMicroseconds / floor.cpuMicroseconds;
  findings.atMost("CPU per batch, files, to the floor's", cpu(files), 4, times);
  findings.atMost(`CPU per batch, ${storeLabel}, to the floor's`, cpu(s3), 6, times);
  findings.atLeast("rate, files, to the floor's", files.rate / floor.rate, 0.25, times);
  findings.atLeast(`rate, ${storeLabel}, to the floor's`, s3.rate / floor.rate, 0.15, times);
  findings.atLeast(`rate, ${storeLabel}, to one PUT per batch`, s3.rate / onePut.rate, 20, times);
  findings.atMost(
    "peak RSS at saturation, files",
    files.rssPeakBytes,
    RSS_BYTES_MAX + inFlight,
    mib,
  );
  findings.atMost(
    `peak RSS at saturation, ${storeLabel}`,
    s3.rssPeakBytes,
    RSS_BYTES_MAX + inFlight,
    mib,
  );
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
