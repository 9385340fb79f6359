import type { PresenceStep } from "../load/plan.ts";
import { barsOf, type Limits } from "../report/findings.ts";
import { fineKib, count, mib, microseconds, seconds } from "../report/units.ts";
import type { Context } from "./measure.ts";
import {
  CASES,
  type Measured,
  markOf,
  measurePresence,
  pairOf,
  startCase,
  TRANSPORTS,
} from "./measure-presence.ts";
import type { PresenceParameters } from "./presence-parameters.ts";

const KIB = 1024;
const RSS_BYTES_MAX = { websocket: 4 * KIB, sse: 8 * KIB };
const CPU_MICROSECONDS_MAX = 2;
const PING_CONNECTIONS = 16;

/**
 * Measures idle connections, on all four servers at the same time: idle servers hardly disturb one
 * another, and CPU and memory are counted by the kernel.
 */
export async function measureIdle(context: Context<PresenceParameters>): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const subjects = [];
  for (const each of CASES)
    subjects.push({ each, subject: stack.use(await startCase(context, each, true)) });
  const results = await measurePresence(context, subjects, {
    phase: "idle",
    pingConnections: PING_CONNECTIONS,
    steps: stepsOf(context.parameters),
  });
  report(
    context,
    CASES.map((each, index) => ({ ...each, results: results.slice(index, index + 1) })),
  );
}

function stepsOf({ idle }: PresenceParameters): PresenceStep[] {
  const settle = (name: string) => ({
    kind: "settle" as const,
    name,
    seconds: idle.settleSeconds,
    secondsMax: idle.settleSecondsMax,
  });
  return [
    { kind: "subscribe", users: idle.warmup, each: 1 },
    { kind: "greet" },
    { kind: "unsubscribe" },
    settle("empty"),
    { kind: "subscribe", users: idle.connections, each: 1 },
    settle("open"),
    { kind: "window", name: "idle", quiet: true, warmupSeconds: 0, seconds: idle.seconds },
    { kind: "greet" },
    settle("pinged"),
  ];
}

function figuresOf({ results }: Measured) {
  const [result] = results;
  const window = result?.windows[0];
  if (result === undefined || window === undefined) throw new Error("idle: no result");
  const { subscribers, usage } = window;
  const emptyBytes = markOf(result, "empty").rssBytes;
  const perConnection = (bytes: number) => (bytes - emptyBytes) / subscribers;
  return {
    subscribers,
    emptyBytes,
    openSeconds: markOf(result, "open").seconds,
    perConnectionBytes: perConnection(window.rssBytes),
    openBytes: perConnection(markOf(result, "open").rssBytes),
    pingedBytes: perConnection(markOf(result, "pinged").rssBytes),
    cpuMicroseconds: (usage.serverCpuSeconds / window.seconds / subscribers) * 1e6,
  };
}

function report(
  { findings, parameters, harness }: Context<PresenceParameters>,
  measured: Measured[],
): void {
  const { connections, settleSeconds, settleSecondsMax } = parameters.idle;
  findings.section(
    `Idle: ${count(connections)} connections, each subscribed to a user of its own, CPU over ${parameters.idle.seconds} s`,
    [
      "",
      "RSS/connection",
      "just opened",
      "users pinged",
      "CPU/s per connection",
      "RSS before",
      "settled in",
    ],
    measured.map((each) => {
      const figures = figuresOf(each);
      return [
        each.label,
        fineKib(figures.perConnectionBytes),
        fineKib(figures.openBytes),
        fineKib(figures.pingedBytes),
        microseconds(figures.cpuMicroseconds),
        mib(figures.emptyBytes),
        seconds(figures.openSeconds),
      ];
    }),
    `RSS/connection is read after the CPU's window, minus the memory after ${parameters.idle.warmup} connections were opened and closed.`,
    `The other readings wait until RSS has changed by less than 1 % over ${settleSeconds} s, at most ${settleSecondsMax} s.`,
    "CPU includes what the server uses without connections. RSS does not include the kernel memory of sockets.",
    `Users pinged: the same after every user was pinged once, so including its state; bus: ${harness.presenceBus}.`,
  );
  const rss: Limits<(typeof measured)[number]> = new Map();
  const cpu: Limits<(typeof measured)[number]> = new Map();
  for (const { transport, name } of TRANSPORTS) {
    const [ours] = pairOf(measured, transport);
    const figures = figuresOf(ours);
    const limit = RSS_BYTES_MAX[transport];
    rss.set(
      ours,
      findings.atMost(`RSS per idle ${name}`, figures.perConnectionBytes, limit, fineKib),
    );
    cpu.set(
      ours,
      findings.atMost(
        `CPU per second of an idle ${name}`,
        figures.cpuMicroseconds,
        CPU_MICROSECONDS_MAX,
        microseconds,
      ),
    );
  }
  findings.charts.push(
    barsOf(
      "RSS per idle connection",
      fineKib,
      measured,
      (each) => figuresOf(each).perConnectionBytes,
      rss,
    ),
    barsOf(
      "CPU per second of an idle connection",
      microseconds,
      measured,
      (each) => figuresOf(each).cpuMicroseconds,
      cpu,
    ),
  );
}
