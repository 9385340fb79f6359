import type { PresenceStep, PresenceWindow } from "../load/plan.ts";
import { barsOf, type Limits } from "../report/findings.ts";
import { microseconds, ms, percent, perSecond } from "../report/units.ts";
import { median } from "../stats.ts";
import type { Context } from "./measure.ts";
import {
  CASES,
  type Measured,
  measureInTurns,
  pairOf,
  TRANSPORTS,
  windowsOf,
} from "./measure-presence.ts";
import type { PresenceParameters } from "./presence-parameters.ts";

const P99_MS_MAX = 100;
const PING_CONNECTIONS = 16;

type Load = PresenceParameters["latency"]["loads"][number];

/** Measures the latency from ping to event under a steady stream of pings. */
export async function measureLatency(context: Context<PresenceParameters>): Promise<void> {
  const { loads, windows } = context.parameters.latency;
  const measured = await measureInTurns(context, 1, {
    phase: "latency",
    pingConnections: PING_CONNECTIONS,
    steps: loads.flatMap((load) => stepsOf(load, context.parameters)),
  });
  const { findings } = context;
  findings.section(
    `Latency: from the intended send of a ping to each receipt of its event, medians of ${windows}`,
    [
      "",
      "offered",
      "delivered",
      "p50",
      "p99",
      "p99.9",
      "worst",
      "skipped",
      "CPU/delivery",
      "generator late",
    ],
    loads.flatMap((load) => CASES.map((_, index) => rowOf(load, measured[index]))),
    "Offered: subscribers of a user × pings per second. Skipped: replaced by a newer event, whose arrival counts.",
    "Generator late: p99 delay of the generator's own timer, which is part of all latencies. Worst: of all windows.",
  );
  for (const load of loads) {
    const limits: Limits<Measured> = new Map();
    const title = `p99 at ${nameOf(load)} deliveries`;
    const p99Ms = (each: Measured) => figuresOf(each, load).p99Ms;
    for (const { transport, name } of TRANSPORTS) {
      const [ours] = pairOf(measured, transport);
      limits.set(ours, findings.atMost(`${title}, ${name}`, p99Ms(ours), P99_MS_MAX, ms));
    }
    findings.charts.push(barsOf(title, ms, measured, p99Ms, limits));
  }
}

function stepsOf(load: Load, { latency }: PresenceParameters): PresenceStep[] {
  const { warmupSeconds, seconds } = latency;
  const windows = Array.from({ length: latency.windows }, (): PresenceStep => ({
    kind: "window",
    name: nameOf(load),
    rate: load.pingsPerSecond,
    warmupSeconds,
    seconds,
  }));
  return [
    { kind: "subscribe", users: load.users, each: load.each },
    { kind: "greet" },
    ...windows,
    { kind: "unsubscribe" },
  ];
}

function nameOf({ each, pingsPerSecond }: Load): string {
  return perSecond(each * pingsPerSecond);
}

/** Returns the medians of the windows. */
function figuresOf(measured: Measured, load: Load) {
  const windows = windowsOf(measured, nameOf(load));
  const over = (read: (window: PresenceWindow) => number) => median(windows.map(read));
  return {
    rate: over(({ deliveries, seconds }) => deliveries / seconds),
    p50Ms: over(({ latency }) => latency.p50Ms),
    p99Ms: over(({ latency }) => latency.p99Ms),
    p999Ms: over(({ latency }) => latency.p999Ms),
    maxMs: Math.max(...windows.map(({ latency }) => latency.maxMs)),
    skipped: over(({ superseded, latency }) => superseded / Math.max(latency.count, 1)),
    cpuMicroseconds: over(({ usage, deliveries }) => (usage.serverCpuSeconds / deliveries) * 1e6),
    lateMs: over(({ lag }) => lag.p99Ms),
  };
}

function rowOf(load: Load, measured: Measured | undefined): string[] {
  if (measured === undefined) throw new Error("latency: no result");
  const figures = figuresOf(measured, load);
  return [
    measured.label,
    `${load.each} × ${load.pingsPerSecond}/s`,
    perSecond(figures.rate),
    ms(figures.p50Ms),
    ms(figures.p99Ms),
    ms(figures.p999Ms),
    ms(figures.maxMs),
    percent(figures.skipped),
    microseconds(figures.cpuMicroseconds),
    ms(figures.lateMs),
  ];
}
