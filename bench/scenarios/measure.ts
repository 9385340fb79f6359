import type { Harness, Subject } from "../harness.ts";
import type { Stage, StageResult, TransferResult, Work } from "../load/plan.ts";
import type { Findings } from "../report/findings.ts";
import type { Store } from "../stores.ts";

export type Context<Parameters> = {
  harness: Harness;
  findings: Findings;
  parameters: Parameters;
};

/**
 * Yields every item in each round. Reverses the order every second round, so that a machine that
 * warms up favours none.
 */
export function* alternating<Item>(rounds: number, items: Item[]): Generator<[number, Item]> {
  for (let round = 1; round <= rounds; round++)
    for (const item of round % 2 === 1 ? items : items.toReversed()) yield [round, item];
}

/** Tables in which acknowledged requests are indexed. */
const TABLES = { batch: "batches", image: "images", put: undefined, get: undefined } as const;

type About = {
  phase: string;
  name: string;
  round?: number;
  subject: Subject;
  store: Store | undefined;
};

type StagesRequest = About & { work: Work; connections: number; stages: Stage[] };

/** Runs stages against a subject; records results and problems. */
export async function measureStages(
  { harness, findings }: Context<unknown>,
  request: StagesRequest,
): Promise<StageResult[]> {
  const { phase, name, subject, store, work, connections, stages } = request;
  const index = await IndexCheck.open(harness, subject, TABLES[work.kind]);
  const results = await harness.load.stages(`${phase}: ${name}`, {
    kind: "stages",
    url: subject.url,
    ...(subject.ca !== undefined && { ca: subject.ca }),
    connections,
    work,
    stages,
    watched: watched(subject),
    ...(store?.simulator !== undefined && { storeUrl: store.simulator.url }),
  });
  for (const result of results) {
    keepResult(findings, request, result);
    findings.failures.push(...problems(`${phase}, ${name}, ${result.name}`, result));
  }
  const acknowledged = results.reduce((sum, { statuses }) => sum + (statuses["200"] ?? 0), 0);
  const sent = results.reduce((sum, each) => sum + each.sent, 0);
  const rows = work.kind === "batch" && work.web === "visual" ? 2 : 1;
  const label = `${phase}, ${name}`;
  findings.failures.push(...(await index.problems(label, acknowledged * rows, sent * rows)));
  return results;
}

/** Runs one stage like `measureStages`. */
export async function measureStage(
  context: Context<unknown>,
  { stage, ...request }: About & { work: Work; connections: number; stage: Stage },
): Promise<StageResult> {
  const [result] = await measureStages(context, { ...request, stages: [stage] });
  if (result === undefined) throw new Error(`${request.phase}: no result`);
  return result;
}

/** Returns the work of sending batches; only Floodgate has projects and sessions. */
export function batchWork({ projectKey }: Subject, bytes: number): Work {
  return { kind: "batch", bytes, ...(projectKey !== undefined && { projectKey }) };
}

type UploadsRequest = About & {
  connections: number;
  bytes: number;
  bytesPerSecond?: number;
  /** Absent if images are uploaded. */
  build?: { signature: string; version: number };
};

/** Uploads whole files at a pace; records the result unless it is a warm-up, and problems. */
export async function measureUploads(
  { harness, findings }: Context<unknown>,
  request: UploadsRequest,
  keep = true,
): Promise<TransferResult> {
  const { phase, name, subject, store, connections, bytes, bytesPerSecond, build } = request;
  const { projectID, projectKey } = subject;
  const table = build === undefined ? "images" : undefined;
  const index = await IndexCheck.open(harness, subject, table);
  const result = await harness.load.uploads(`${phase}: ${name}${keep ? "" : " (warm-up)"}`, {
    kind: "uploads",
    url: subject.url,
    form: build === undefined ? { kind: "image", projectID } : { kind: "build", ...build },
    ...(build === undefined && projectKey !== undefined && { projectKey }),
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
  const acknowledged = result.statuses["200"] ?? 0;
  findings.failures.push(...(await index.problems(`${phase}, ${name}`, acknowledged, connections)));
  if (keep) keepResult(findings, request, result);
  return result;
}

type DownloadsRequest = About & { connections: number; path: string; bytes: number };

/** Downloads one file over all connections at once; records the result and problems. */
export async function measureDownloads(
  { harness, findings }: Context<unknown>,
  request: DownloadsRequest,
): Promise<TransferResult> {
  const { phase, name, subject, connections, path, bytes } = request;
  const plan = { kind: "downloads", url: subject.url, path, connections } as const;
  const result = await harness.load.downloads(`${phase}: ${name}`, {
    ...plan,
    watched: watched(subject),
  });
  if (result.statuses["200"] !== connections || result.bytes !== connections * bytes)
    findings.failures.push(
      `${phase}, ${name}: ${connections} downloads gave ${result.bytes} bytes and ${JSON.stringify(result.statuses)}`,
    );
  keepResult(findings, request, result);
  return result;
}

function keepResult(
  findings: Findings,
  { phase, name, store, round = 1 }: About,
  result: StageResult | TransferResult,
): void {
  findings.measurements.push({
    phase,
    subject: name,
    store: store?.label ?? "none",
    round,
    result,
  });
}

export function watched(subject: Subject) {
  return {
    server: subject.pid,
    ...(subject.postgres !== undefined && { postgres: subject.postgres }),
    ...(subject.proxy !== undefined && { proxy: subject.proxy }),
  };
}

/** Checks that acknowledged requests are in the index: without that their rate is worth nothing. */
class IndexCheck {
  readonly #harness: Harness;
  readonly #table: "batches" | "images";
  readonly #before: number;

  private constructor(harness: Harness, table: "batches" | "images", before: number) {
    this.#harness = harness;
    this.#table = table;
    this.#before = before;
  }

  /** Checks nothing for baselines, which have no index, and for requests that are not indexed. */
  static async open(harness: Harness, subject: Subject, table: "batches" | "images" | undefined) {
    if (subject.projectKey === undefined || table === undefined)
      return { problems: async () => [] };
    return new IndexCheck(harness, table, await harness.countRows(table));
  }

  /**
   * Compares the rows with the acknowledgements: no request was sent twice, so each acknowledged
   * one has a row, and others may have one.
   */
  async problems(label: string, acknowledged: number, sent: number): Promise<string[]> {
    const rows = (await this.#harness.countRows(this.#table)) - this.#before;
    if (rows >= acknowledged && rows <= sent) return [];
    return [
      `${label}: ${acknowledged} of ${sent} were acknowledged, ${rows} ${this.#table} are indexed`,
    ];
  }
}

/**
 * Returns the problems of a stage. 503 is an allowed answer under load; others than 200 are not.
 */
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
