import type { Latency, PresenceResult, PresenceStep, PresenceWindow } from "../load/plan.ts";
import { barsOf, type Limits } from "../report/findings.ts";
import { count, fineKib, kib, mib, ms, or, times } from "../report/units.ts";
import { median } from "../stats.ts";
import type { Context } from "./measure.ts";
import {
  CASES,
  type Measured,
  markOf,
  measurePresence,
  pairOf,
  startCase,
  TRANSPORTS,
  windowsOf,
} from "./measure-presence.ts";
import type { PresenceParameters } from "./presence-parameters.ts";

const GROWTH_BYTES_MAX = 64 * 1024;
const P99_TIMES_MAX = 1.1;
const LAG_MS_MAX = 10;
const PING_CONNECTIONS = 16;
/** Long names make long events, which fill the kernel's buffers within seconds. */
const NAME_LENGTH = 120;

type Run = Measured & { dropped: number[] };

/** Measures the memory of subscribers that never read, and their effect on others that do. */
export async function measureStalled(context: Context<PresenceParameters>): Promise<void> {
  const { rounds, together } = context.parameters.stalled;
  const runs: Run[] = CASES.map((each) => ({ ...each, results: [], dropped: [] }));
  const [ours, bare] = [runs.filter((run) => run.ours), runs.filter((run) => !run.ours)];
  if (together) await measureTogether(context, runs, 1);
  else {
    for (let round = 1; round <= rounds; round++)
      for (const run of round % 2 === 1 ? ours : ours.toReversed())
        await measureTogether(context, [run], round);
    // The bare servers are measured for their memory only, so they may run at the same time.
    await measureTogether(context, bare, 1);
  }
  report(context, runs);
}

async function measureTogether(
  context: Context<PresenceParameters>,
  runs: Run[],
  round: number,
): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const subjects = [];
  for (const each of runs)
    subjects.push({ each, subject: stack.use(await startCase(context, each, runs.length > 1)) });
  const results = await measurePresence(context, subjects, {
    phase: "stalled",
    round,
    pingConnections: PING_CONNECTIONS,
    nameLength: NAME_LENGTH,
    steps: stepsOf(context.parameters),
  });
  for (const [index, run] of runs.entries()) {
    const [result, url] = [results[index], subjects[index]?.subject.url];
    if (result === undefined || url === undefined) throw new Error("stalled: no result");
    run.results.push(result);
    if (run.ours) run.dropped.push(await droppedBy(url));
  }
}

/**
 * Returns the steps. Half of the windows without stalled subscribers come before those with them
 * and half after, so that drift favours neither.
 */
function stepsOf({ stalled }: PresenceParameters): PresenceStep[] {
  const { healthy, fill, settleSeconds, seconds, pingsPerSecond } = stalled;
  const windows = (name: string, length: number) =>
    Array.from({ length }, (): PresenceStep => ({
      kind: "window",
      name,
      rate: pingsPerSecond,
      warmupSeconds: settleSeconds,
      seconds,
    }));
  return [
    { kind: "subscribe", users: 1, each: healthy },
    { kind: "greet" },
    ...windows("without", stalled.windows / 2),
    { kind: "stall", subscribers: stalled.stalled },
    {
      kind: "window",
      name: "fill",
      rate: fill.pingsPerSecond,
      warmupSeconds: 0,
      seconds: fill.seconds,
    },
    ...windows("with", stalled.windows),
    { kind: "unstall" },
    ...windows("without", stalled.windows / 2),
  ];
}

/** Counts the subscribers that the server itself closed. */
async function droppedBy(url: string): Promise<number> {
  const response = await fetch(`${url}/metrics`);
  const text = await response.text();
  const lines = text.matchAll(/^floodgate_presence_dropped_total\{[^}]*\} (\d+)/gm);
  return [...lines].reduce((sum, [, value]) => sum + Number(value), 0);
}

function figuresOf(run: Run) {
  const over = (name: string, read: (latency: Latency) => number) =>
    median(undisturbed(windowsOf(run, name)).map(({ latency }) => read(latency)));
  const growth = run.results.map((result) => growthOf(result));
  return {
    // The highest of all rounds, because a memory limit must hold in each.
    growthBytes: Math.max(...growth),
    withMs: over("with", ({ p99Ms }) => p99Ms),
    withoutMs: over("without", ({ p99Ms }) => p99Ms),
    withP90Ms: over("with", ({ p90Ms }) => p90Ms),
    withoutP90Ms: over("without", ({ p90Ms }) => p90Ms),
    dropped: run.ours ? median(run.dropped) : undefined,
    bytes: median(
      windowsOf(run, "with").map(({ deliveredBytes, deliveries }) => deliveredBytes / deliveries),
    ),
  };
}

/** Leaves out windows in which the generator itself was delayed, unless these are the majority. */
function undisturbed(windows: PresenceWindow[]): PresenceWindow[] {
  const kept = windows.filter(({ lag }) => lag.maxMs <= LAG_MS_MAX);
  return kept.length * 2 >= windows.length ? kept : windows;
}

/** Returns the peak memory with stalled subscribers minus the memory before the first of them. */
function growthOf(result: PresenceResult): number {
  const peaks = result.windows
    .filter(({ stalled }) => stalled > 0)
    .map(({ usage }) => usage.rssPeakBytes);
  return Math.max(...peaks) - markOf(result, "stall").rssBytes;
}

function report({ findings, parameters }: Context<PresenceParameters>, runs: Run[]): void {
  const { stalled, healthy, pingsPerSecond, rounds } = parameters.stalled;
  findings.section(
    `Stalled: ${count(stalled)} subscribers that never read beside ${healthy} that do, ${pingsPerSecond} pings/s, ${rounds} rounds`,
    [
      "",
      "RSS growth",
      "per stalled",
      "p90 without",
      "p90 with",
      "p99 without",
      "p99 with",
      "with/without",
      "dropped",
      "bytes/event",
    ],
    runs.map((run) => {
      const figures = figuresOf(run);
      return [
        run.label,
        mib(figures.growthBytes),
        fineKib(figures.growthBytes / stalled),
        ms(figures.withoutP90Ms),
        ms(figures.withP90Ms),
        ms(figures.withoutMs),
        ms(figures.withMs),
        times(figures.withMs / figures.withoutMs),
        or(figures.dropped, count),
        count(figures.bytes),
      ];
    }),
    `p90 and p99 are those of subscribers that read: medians of ${rounds * parameters.stalled.windows} windows of ${parameters.stalled.seconds} s without stalled ones and as many with them;`,
    `windows in which the generator's own timer was ${LAG_MS_MAX} ms late are left out. With so few pings a window's p99 is its worst ping and varies by a quarter.`,
    "Stalled subscribers have receive buffers of 4 KiB and segments of 536 bytes, so the kernel buffers some 150 KiB for each before the server has to wait.",
  );
  const limits: Limits<(typeof runs)[number]> = new Map();
  for (const { transport, name } of TRANSPORTS) {
    const [ours] = pairOf(runs, transport);
    const figures = figuresOf(ours);
    const limit = findings.atMost(
      `RSS growth per stalled ${name}`,
      figures.growthBytes / stalled,
      GROWTH_BYTES_MAX,
      kib,
    );
    limits.set(ours, limit);
    findings.atMost(
      `p99 beside stalled to without, ${name}`,
      figures.withMs / figures.withoutMs,
      P99_TIMES_MAX,
      times,
    );
  }
  findings.charts.push(
    barsOf(
      "RSS growth per stalled subscriber",
      kib,
      runs,
      (run) => figuresOf(run).growthBytes / stalled,
      limits,
    ),
  );
}
