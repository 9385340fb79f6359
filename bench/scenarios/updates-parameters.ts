import type { Options } from "../options.ts";
import type { Context } from "./measure.ts";

const MB = 1_000_000;
const MIB = 2 ** 20;

const FULL = {
  /** Number of builds in the table during checks. */
  builds: 200,
  check: {
    rounds: 2,
    connections: 64,
    warmupSeconds: 2,
    seconds: 5,
    /** Fixed rate, as a share of Floodgate's rate at saturation. */
    share: 0.5,
    extras: true,
  },
  build: { bytes: 2000 * MB },
  publish: { rounds: 2 },
  download: { rounds: 2, connections: 4 },
  rollout: { ids: 1_000_000, percents: [0.5, 1, 5, 10, 25, 50, 90, 99.5] },
  spread: { rounds: 20 },
  /** Load before the measurement, so that growth does not include that after the start. */
  warmup: { uploads: 20, bytes: MIB },
};

export type UpdatesParameters = typeof FULL;

/** Context with a signature that may publish. */
export type UpdatesContext = Context<UpdatesParameters> & { signature: string };

const QUICK: UpdatesParameters = {
  ...FULL,
  check: { ...FULL.check, rounds: 1, warmupSeconds: 0.5, seconds: 1, extras: false },
  build: { bytes: 64 * MB },
  publish: { rounds: 1 },
  download: { ...FULL.download, rounds: 1 },
  rollout: { ...FULL.rollout, percents: [10, 50] },
  spread: { rounds: 5 },
};

export function updatesParameters(options: Options): UpdatesParameters {
  const base = options.quick ? QUICK : FULL;
  const rounds = (each: { rounds: number }) => ({ rounds: options.rounds ?? each.rounds });
  return {
    ...base,
    check: {
      ...base.check,
      ...rounds(base.check),
      connections: options.connections ?? base.check.connections,
      seconds: options.seconds ?? base.check.seconds,
    },
    publish: rounds(base.publish),
    download: { ...base.download, ...rounds(base.download) },
  };
}
