import type { Harness, Store, Subject } from "../harness.ts";
import type { Stage, StageResult, UploadsResult, Work } from "../load/plan.ts";
import type { Findings } from "../report/findings.ts";

export type Context<Parameters> = {
  harness: Harness;
  findings: Findings;
  parameters: Parameters;
};

type About = {
  phase: string;
  name: string;
  round?: number;
  subject: Subject;
  store: Store | undefined;
};

type StagesRequest = About & { work: Work; connections: number; stages: Stage[] };

/** Runs stages against a subject, keeps their results, and checks that they can be believed. */
export async function measureStages(
  { harness, findings }: Context<unknown>,
  request: StagesRequest,
): Promise<StageResult[]> {
  const { phase, name, round = 1, subject, store, work, connections, stages } = request;
  const table = countedTable(subject, work);
  const before = table === undefined ? 0 : await harness.countRows(table);
  const results = await harness.load.stages(`${phase}: ${name}`, {
    kind: "stages",
    url: subject.url,
    connections,
    work,
    stages,
    watched: watched(subject),
    ...(store?.simulator !== undefined && { storeUrl: store.simulator.url }),
  });
  for (const result of results) {
    findings.measurements.push({
      phase,
      subject: name,
      store: store?.label ?? "none",
      round,
      result,
    });
    findings.failures.push(...problems(`${phase}, ${name}, ${result.name}`, result));
  }
  if (table !== undefined) {
    const stored = (await harness.countRows(table)) - before;
    const acknowledged = results.reduce((sum, { statuses }) => sum + (statuses["200"] ?? 0), 0);
    const sent = results.reduce((sum, each) => sum + each.sent, 0);
    if (stored < acknowledged || stored > sent)
      findings.failures.push(
        `${phase}, ${name}: ${acknowledged} of ${sent} ${table} were acknowledged, ${stored} are indexed`,
      );
  }
  return results;
}

/** One stage, one result. */
export async function measureStage(
  context: Context<unknown>,
  { stage, ...request }: About & { work: Work; connections: number; stage: Stage },
): Promise<StageResult> {
  const [result] = await measureStages(context, { ...request, stages: [stage] });
  if (result === undefined) throw new Error(`${request.phase}: no result`);
  return result;
}

/** Batches as this subject takes them: only Floodgate has projects and sessions. */
export function batchWork({ projectKey }: Subject, bytes: number): Work {
  return { kind: "batch", bytes, ...(projectKey !== undefined && { projectKey }) };
}

type UploadsRequest = About & { connections: number; bytes: number; bytesPerSecond?: number };

/** The same for whole images at a pace. Warm-ups are not kept. */
export async function measureUploads(
  { harness, findings }: Context<unknown>,
  request: UploadsRequest,
  keep = true,
): Promise<UploadsResult> {
  const { phase, name, round = 1, subject, store, connections, bytes, bytesPerSecond } = request;
  const result = await harness.load.uploads(`${phase}: ${name}${keep ? "" : " (warm-up)"}`, {
    kind: "uploads",
    url: subject.url,
    projectID: subject.projectID,
    ...(subject.projectKey !== undefined && { projectKey: subject.projectKey }),
    connections,
    bytes,
    ...(bytesPerSecond !== undefined && { bytesPerSecond }),
    watched: watched(subject),
    ...(store?.simulator !== undefined && { storeUrl: store.simulator.url }),
  });
  if (result.statuses["200"] !== connections)
    findings.failures.push(
      `${phase}, ${name}: ${connections} uploads were answered ${JSON.stringify(result.statuses)}, ${result.broken} not at all`,
    );
  if (keep)
    findings.measurements.push({
      phase,
      subject: name,
      store: store?.label ?? "none",
      round,
      result,
    });
  return result;
}

function watched(subject: Subject) {
  return {
    server: subject.pid,
    ...(subject.postgres !== undefined && { postgres: subject.postgres }),
  };
}

/** Only Floodgate has sessions, and with them an index to compare with. */
function countedTable(subject: Subject, work: Work): "batches" | "images" | undefined {
  if (subject.projectKey === undefined || work.kind === "put") return undefined;
  return work.kind === "batch" ? "batches" : "images";
}

/** A refusal is an answer that a loaded server may give; anything else but 200 is not. */
function problems(label: string, result: StageResult): string[] {
  const { statuses, acknowledged, broken, unanswered } = result;
  const found = Object.entries(statuses)
    .filter(([status]) => status !== "200" && status !== "503")
    .map(([status, times]) => `${label}: ${times} requests were answered ${status}`);
  if (acknowledged === 0) found.push(`${label}: nothing was acknowledged`);
  if (broken > 0) found.push(`${label}: ${broken} connections ended with a request on them`);
  if (unanswered > 0) found.push(`${label}: ${unanswered} requests were never answered`);
  return found;
}
