import type { Harness } from "../harness.ts";
import type { StageResult } from "../load/plan.ts";
import type { Options } from "../options.ts";
import type { Findings } from "../report/findings.ts";
import { count, kib, megabytes, microseconds, mib, ms, or, perSecond } from "../report/units.ts";
import { figuresOf, median } from "../stats.ts";
import { startTlsProxy } from "../tls-proxy.ts";
import { alternating } from "./measure.ts";
import { type LoadParameters, saturate, type Saturation, workers } from "./saturate.ts";

const KIB = 1024;

/** Bytes that all connections may send at once: a server refuses what exceeds its own limit. */
const HELD_BYTES_MAX = 128 * 2 ** 20;

const FULL = {
  rounds: 1,
  connections: 1024,
  batchBytes: 16 * KIB,
  warmupSeconds: 2,
  seconds: 5,
  putsPerSecond: 0,
  /** Sizes of batches, before compression. */
  sizes: [1, 4, 16, 64, 512].map((each) => each * KIB),
  counts: [64, 128, 256, 512, 1024, 2048, 4096, 8192],
};

export type SizingParameters = LoadParameters & typeof FULL;

const QUICK: SizingParameters = {
  ...FULL,
  connections: 64,
  warmupSeconds: 0.5,
  seconds: 1,
  sizes: [KIB, 16 * KIB],
  counts: [64, 1024],
};

type Variation = Pick<Saturation, "start" | "connections" | "batchBytes" | "gzip"> & {
  name: string;
};

type Phase = { title: string; variations: (parameters: SizingParameters) => Variation[] };

const PHASES: Record<string, Phase> = {
  size: {
    title: "Size of a batch",
    variations: ({ sizes, connections: most }) =>
      sizes.flatMap((batchBytes) => {
        const connections = Math.min(most, Math.floor(HELD_BYTES_MAX / batchBytes));
        const plain = { name: kib(batchBytes), batchBytes, connections };
        return [plain, { ...plain, name: `${plain.name}, gzip`, gzip: true }];
      }),
  },
  connections: {
    title: "Busy connections",
    variations: ({ counts }) =>
      counts.map((connections) => ({ name: count(connections), connections })),
  },
  workers: {
    title: "Serving processes of `start`",
    variations: () => [1, 2].map((each) => ({ name: `WORKERS=${each}`, start: workers(each) })),
  },
  tls: {
    title: "A proxy in front",
    variations: () => [
      { name: "none" },
      {
        name: "nginx with TLS",
        start: async (harness, store) =>
          startTlsProxy(harness, await harness.startFloodgate(store)),
      },
    ],
  },
};

export const sizingPhases = Object.keys(PHASES);

/** Measures what a batch costs in several sizes, numbers of connections and deployments. */
export async function runSizing(
  harness: Harness,
  findings: Findings,
  options: Options,
): Promise<SizingParameters> {
  const base = options.quick ? QUICK : FULL;
  const parameters = {
    ...base,
    rounds: options.rounds ?? base.rounds,
    connections: options.connections ?? base.connections,
    batchBytes: options.bytes ?? base.batchBytes,
    seconds: options.seconds ?? base.seconds,
    putsPerSecond: options.putsPerSecond ?? base.putsPerSecond,
  };
  for (const phase of options.phases) {
    const { title = "", variations = () => [] } = PHASES[phase] ?? {};
    const measured = variations(parameters).map((variation) => ({
      ...variation,
      results: new Array<StageResult>(),
    }));
    for (const [round, { results, ...variation }] of alternating(parameters.rounds, measured)) {
      const request = { phase, round, store: "s3" as const, ...variation };
      results.push(await saturate({ harness, findings, parameters }, request));
    }
    findings.section(
      `${title}, ${harness.stores.label("s3")}, median of ${parameters.rounds}`,
      COLUMNS,
      measured.map(({ name, results, ...own }) => row(name, results, { ...parameters, ...own })),
    );
  }
  return parameters;
}

const COLUMNS = [
  "",
  "connections",
  "batch",
  "acknowledged",
  "bytes",
  "on the wire",
  "CPU/batch",
  "nginx",
  "PostgreSQL",
  "p50",
  "p99",
  "peak RSS",
  "refused",
];

function row(name: string, results: StageResult[], load: LoadParameters): string[] {
  const figures = figuresOf(results);
  const sentBytes = median(results.map(({ bodyBytes }) => bodyBytes));
  return [
    name,
    count(load.connections),
    kib(load.batchBytes),
    perSecond(figures.rate),
    megabytes(figures.rate * load.batchBytes),
    megabytes(figures.rate * sentBytes),
    microseconds(figures.cpuMicroseconds),
    or(figures.proxyMicroseconds, microseconds),
    or(figures.postgresMicroseconds, microseconds),
    ms(figures.p50Ms),
    ms(figures.p99Ms),
    mib(figures.rssPeakBytes),
    count(results.reduce((sum, { refused }) => sum + refused, 0)),
  ];
}
