import type { Options } from "../options.ts";

const MIB = 2 ** 20;

const FULL = {
  rounds: 3,
  /** Also run measurements without a target. */
  extras: true,
  connections: 1024,
  batchBytes: 16_384,
  warmupSeconds: 2,
  seconds: 5,
  /** Also run the servers that Floodgate is measured against. */
  baselines: true,
  /** Limit of the simulator at saturation, like that of a real gateway; 0 is unlimited. */
  putsPerSecond: 0,
  /** Numbers of connections of the phase with few. */
  few: [64, 128, 256, 512],
  web: {
    /** Size of a whole page, before compression. */
    pageBytes: 100 * 1024,
    warmupSeconds: 1,
    seconds: 1.5,
    walk: { rounds: 5, ms: 100 },
  },
  noClients: { settleSeconds: 10, seconds: 30 },
  soak: { minutes: 10, share: 0.8 },
  steady: {
    rate: 1000,
    /** Time at full load that uses up the burst of eager PUTs. */
    spendSeconds: 5,
    seconds: 30,
  },
  /** One request at a time, at a rate that the eager PUTs' refill covers. */
  idle: { rate: 2, warmupSeconds: 1, seconds: 8 },
  overload: {
    putsPerSecond: 20,
    commitBytes: MIB,
    inflightBytesMax: 24 * MIB,
    // The in-flight limit fits 1,536 batches: fewer connections for the peak, more for overload.
    peakConnections: 1200,
    connections: 2560,
    factor: 3,
    warmupSeconds: 3,
    seconds: 6,
  },
  curve: { factors: [0.5, 1, 1.5, 2, 3], warmupSeconds: 1.5, seconds: 4 },
};

export type IngestParameters = typeof FULL;

const QUICK: IngestParameters = {
  ...FULL,
  rounds: 1,
  extras: false,
  connections: 256,
  warmupSeconds: 0.5,
  seconds: 1,
  few: [64, 512],
  web: { ...FULL.web, warmupSeconds: 0.5, seconds: 1, walk: { rounds: 1, ms: 50 } },
  noClients: { settleSeconds: 1, seconds: 2 },
  soak: { minutes: 0.1, share: 0.8 },
  steady: { ...FULL.steady, spendSeconds: 1, seconds: 2 },
  idle: { ...FULL.idle, warmupSeconds: 0.5, seconds: 1.5 },
  overload: { ...FULL.overload, warmupSeconds: 1, seconds: 1.5 },
  curve: { factors: [0.5, 2], warmupSeconds: 0.5, seconds: 1 },
};

export function ingestParameters(options: Options): IngestParameters {
  const base = options.quick ? QUICK : FULL;
  return {
    ...base,
    rounds: options.rounds ?? base.rounds,
    baselines: options.compared.length === 0,
    connections: options.connections ?? base.connections,
    batchBytes: options.bytes ?? base.batchBytes,
    soak: { ...base.soak, minutes: options.soak ?? base.soak.minutes },
    seconds: options.seconds ?? base.seconds,
    putsPerSecond: options.putsPerSecond ?? base.putsPerSecond,
  };
}
