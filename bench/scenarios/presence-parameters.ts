import type { Options } from "../options.ts";

const FULL = {
  /** Rounds of the fan-out phase. */
  rounds: 2,
  idle: {
    connections: 10_000,
    /** Connections that are opened and closed before the memory is first read. */
    warmup: 200,
    settleSeconds: 5,
    settleSecondsMax: 30,
    seconds: 30,
  },
  fanOut: { subscribers: 1000, pingConnections: 8, warmupSeconds: 0.5, seconds: 2.5 },
  latency: {
    loads: [
      { users: 10, each: 100, pingsPerSecond: 100 },
      { users: 1, each: 1000, pingsPerSecond: 100 },
    ],
    /** Number of short windows, so that other load on the machine spoils only some of them. */
    windows: 3,
    warmupSeconds: 0.2,
    seconds: 1.2,
  },
  stalled: {
    rounds: 2,
    healthy: 200,
    stalled: 1000,
    pingsPerSecond: 50,
    /** Higher rate at first, which fills the kernel's buffers of connections that do not read. */
    fill: { pingsPerSecond: 200, seconds: 4 },
    windows: 4,
    settleSeconds: 0.3,
    seconds: 1.8,
    /** True to measure all four cases at once, for a quick run. */
    together: false,
  },
};

export type PresenceParameters = typeof FULL;

const QUICK: PresenceParameters = {
  rounds: 1,
  idle: { connections: 500, warmup: 50, settleSeconds: 1, settleSecondsMax: 1.5, seconds: 2 },
  fanOut: { ...FULL.fanOut, subscribers: 200, warmupSeconds: 0.2, seconds: 0.6 },
  latency: {
    loads: [
      { users: 10, each: 20, pingsPerSecond: 100 },
      { users: 1, each: 200, pingsPerSecond: 100 },
    ],
    windows: 1,
    warmupSeconds: 0.1,
    seconds: 0.5,
  },
  stalled: {
    rounds: 1,
    healthy: 50,
    stalled: 100,
    pingsPerSecond: 50,
    fill: { pingsPerSecond: 200, seconds: 1 },
    windows: 2,
    settleSeconds: 0.1,
    seconds: 0.5,
    together: true,
  },
};

export function presenceParameters(options: Options): PresenceParameters {
  const base = options.quick ? QUICK : FULL;
  return {
    ...base,
    rounds: options.rounds ?? base.rounds,
    idle: { ...base.idle, connections: options.connections ?? base.idle.connections },
    fanOut: { ...base.fanOut, seconds: options.seconds ?? base.fanOut.seconds },
  };
}
