import type { PresenceWindow } from "../load/plan.ts";
import { barsOf, type Limits, limitTimes } from "../report/findings.ts";
import { count, microseconds, or, percent, perSecond, times } from "../report/units.ts";
import { median } from "../stats.ts";
import type { Context } from "./measure.ts";
import {
  type Measured,
  measureInTurns,
  pairOf,
  TRANSPORTS,
  windowsOf,
} from "./measure-presence.ts";
import type { PresenceParameters } from "./presence-parameters.ts";

const RATE_TIMES_MIN = 0.5;

/** Measures one user with a thousand subscribers, pinged as fast as events can be delivered. */
export async function measureFanOut(context: Context<PresenceParameters>): Promise<void> {
  const { rounds, fanOut } = context.parameters;
  const { subscribers, pingConnections, warmupSeconds, seconds } = fanOut;
  const measured = await measureInTurns(context, rounds, {
    phase: "fan-out",
    pingConnections,
    steps: [
      { kind: "subscribe", users: 1, each: subscribers },
      { kind: "greet" },
      { kind: "window", name: "saturation", warmupSeconds, seconds },
    ],
  });
  report(context, measured);
}

function figuresOf(each: Measured) {
  const windows = windowsOf(each, "saturation");
  const over = (read: (window: PresenceWindow) => number) => median(windows.map(read));
  const perDelivery = (read: (window: PresenceWindow) => number) =>
    over((window) => (read(window) / window.deliveries) * 1e6);
  return {
    rate: over(({ deliveries, seconds }) => deliveries / seconds),
    pings: over(({ pings, seconds }) => pings / seconds),
    share: over(({ deliveries, pings, subscribers }) => deliveries / (pings * subscribers)),
    cpuMicroseconds: perDelivery(({ usage }) => usage.serverCpuSeconds),
    generatorMicroseconds: perDelivery(({ usage }) => usage.generatorCpuSeconds),
    postgresMicroseconds: each.ours
      ? over(({ usage, pings }) => ((usage.postgresCpuSeconds ?? Number.NaN) / pings) * 1e6)
      : undefined,
    bytes: over(({ deliveredBytes, deliveries }) => deliveredBytes / deliveries),
  };
}

function report({ findings, parameters }: Context<PresenceParameters>, measured: Measured[]): void {
  const { subscribers, pingConnections } = parameters.fanOut;
  findings.section(
    `Fan-out: ${count(subscribers)} subscribers of one user, ${pingConnections} pings in flight at a time, median of ${parameters.rounds}`,
    [
      "",
      "delivered",
      "to bare",
      "CPU/delivery",
      "to bare",
      "pings",
      "arrived",
      "bytes",
      "PostgreSQL/ping",
      "generator",
    ],
    measured.map((each) => {
      const figures = figuresOf(each);
      const bare = figuresOf(pairOf(measured, each.transport)[1]);
      return [
        each.label,
        perSecond(figures.rate),
        times(figures.rate / bare.rate),
        microseconds(figures.cpuMicroseconds),
        times(figures.cpuMicroseconds / bare.cpuMicroseconds),
        perSecond(figures.pings),
        percent(figures.share),
        count(figures.bytes),
        or(figures.postgresMicroseconds, microseconds),
        microseconds(figures.generatorMicroseconds),
      ];
    }),
    "A ping is in flight until it is answered and eight subscribers, spread over all, have its event or a newer one.",
    "Arrived: events received to pings times subscribers; below 100 % if newer events replaced waiting ones.",
  );
  const limits: Limits<Measured> = new Map();
  for (const { transport, name } of TRANSPORTS) {
    const pair = pairOf(measured, transport);
    const [ours, bare] = [figuresOf(pair[0]), figuresOf(pair[1])];
    const limit = findings.atLeast(
      `deliveries to bare Bun, ${name}`,
      ours.rate / bare.rate,
      RATE_TIMES_MIN,
      times,
    );
    limits.set(pair[0], limitTimes(limit, bare.rate, "bare Bun"));
    findings.atLeast(
      `deliveries per CPU second to bare Bun, ${name}`,
      bare.cpuMicroseconds / ours.cpuMicroseconds,
      RATE_TIMES_MIN,
      times,
    );
  }
  findings.charts.push(
    barsOf("Deliveries", perSecond, measured, (each) => figuresOf(each).rate, limits),
    barsOf(
      "Server CPU per delivery",
      microseconds,
      measured,
      (each) => figuresOf(each).cpuMicroseconds,
    ),
  );
}
