import type { Subject } from "../harness.ts";
import type {
  PresenceMark,
  PresenceResult,
  PresenceStep,
  PresenceWindow,
  Transport,
} from "../load/plan.ts";
import type { Series } from "../report/series.ts";
import { alternating, type Context, watched } from "./measure.ts";

/** One of the four cases that every phase measures. */
export type Case = { series: Series; label: string; transport: Transport; ours: boolean };

export const CASES: Case[] = [
  { series: "webSocket", label: "Floodgate, WebSocket", transport: "websocket", ours: true },
  { series: "bareWebSocket", label: "bare Bun, WebSocket", transport: "websocket", ours: false },
  { series: "sse", label: "Floodgate, SSE", transport: "sse", ours: true },
  { series: "bareSse", label: "bare Bun, SSE", transport: "sse", ours: false },
];

export const TRANSPORTS = [
  { transport: "websocket", name: "WebSocket" },
  { transport: "sse", name: "SSE" },
] as const;

export type Measured = Case & { results: PresenceResult[] };

type Request = {
  phase: string;
  round?: number;
  pingConnections: number;
  steps: PresenceStep[];
  nameLength?: number;
};

// Length of a typical id.
const NAME_LENGTH = 24;

/** Runs the same steps against several servers at once; records results and problems. */
export async function measurePresence(
  { harness, findings }: Context<unknown>,
  subjects: { each: Case; subject: Subject }[],
  { phase, round = 1, pingConnections, steps, nameLength = NAME_LENGTH }: Request,
): Promise<PresenceResult[]> {
  const labels = subjects.map(({ each }) => each.label).join("; ");
  const plans = subjects.map(({ each, subject }) => ({
    kind: "presence" as const,
    url: subject.url,
    transport: each.transport,
    bare: !each.ours,
    nameLength,
    pingConnections,
    steps,
    watched: watched(subject),
  }));
  const results = await harness.load.presence(`${phase}: ${labels}`, plans);
  for (const [index, result] of results.entries()) {
    const subject = subjects[index]?.each.label ?? "";
    const store = harness.presenceBus;
    findings.measurements.push({ phase, subject, store, round, result });
    findings.failures.push(...result.problems.map((each) => `${phase}, ${subject}: ${each}`));
  }
  return results;
}

/** Measures each case on a fresh server, in alternating order. */
export async function measureInTurns(
  context: Context<unknown>,
  rounds: number,
  request: Request,
): Promise<Measured[]> {
  const measured = CASES.map((each) => ({ ...each, results: new Array<PresenceResult>() }));
  for (const [round, each] of alternating(rounds, measured)) {
    await using subject = await startCase(context, each);
    each.results.push(
      ...(await measurePresence(context, [{ each, subject }], { ...request, round })),
    );
  }
  return measured;
}

export async function startCase(
  { harness }: Context<unknown>,
  { ours }: Case,
  apart = false,
): Promise<Subject> {
  if (!ours) return harness.startPresenceFloor();
  return harness.startPresence(await harness.stores.open("files"), { apart });
}

export function windowsOf({ results }: Measured, name: string): PresenceWindow[] {
  const windows = results.flatMap((result) => result.windows.filter((each) => each.name === name));
  if (windows.length === 0) throw new Error(`no window "${name}"`);
  return windows;
}

export function markOf({ marks }: PresenceResult, name: string): PresenceMark {
  const mark = marks.find((each) => each.name === name);
  if (mark === undefined) throw new Error(`no mark "${name}"`);
  return mark;
}

/** Returns the results of Floodgate and of the bare server on one transport. */
export function pairOf<Each extends Case>(measured: Each[], transport: Transport): [Each, Each] {
  const ours = measured.find((each) => each.transport === transport && each.ours);
  const bare = measured.find((each) => each.transport === transport && !each.ours);
  if (ours === undefined || bare === undefined) throw new Error(`no measurements on ${transport}`);
  return [ours, bare];
}
