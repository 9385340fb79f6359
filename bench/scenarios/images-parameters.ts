import type { Options } from "../options.ts";

const MB = 1_000_000;
const KIB = 1024;

const FULL = {
  rounds: 3,
  large: { bytes: 400 * MB },
  // Each sends more bytes than the memory it may use, so that buffering whole bodies would show.
  slow: { connections: 500, bytesPerSecond: 20 * KIB, seconds: 15 },
  small: { connections: 64, bytes: 100 * KIB, warmupSeconds: 2, seconds: 5 },
  /** Load before the measurement, so that growth does not include that after the start. */
  warmup: { uploads: 20, bytes: MB },
};

export type ImagesParameters = typeof FULL;

const QUICK: ImagesParameters = {
  rounds: 1,
  large: { bytes: 50 * MB },
  slow: { connections: 100, bytesPerSecond: 20 * KIB, seconds: 2 },
  small: { connections: 32, bytes: 100 * KIB, warmupSeconds: 0.5, seconds: 1 },
  warmup: { uploads: 10, bytes: MB },
};

export function imagesParameters(options: Options): ImagesParameters {
  const base = options.quick ? QUICK : FULL;
  return {
    ...base,
    rounds: options.rounds ?? base.rounds,
    slow: { ...base.slow, connections: options.connections ?? base.slow.connections },
    small: { ...base.small, seconds: options.seconds ?? base.small.seconds },
  };
}
