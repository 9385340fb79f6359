import { Type } from "typebox";
import { Value } from "typebox/value";

import { cpuSeconds, familyCpuSeconds, peakRssBytes } from "../accounting.ts";
import { type Harness, SERVER_KEY, type Subject } from "../harness.ts";
import type { StagesPlan } from "../load/plan.ts";
import type { Options } from "../options.ts";
import type { Findings } from "../report/findings.ts";
import {
  count,
  megabytes,
  microseconds,
  mib,
  ms,
  perSecond,
  seconds,
  times,
} from "../report/units.ts";
import { median } from "../stats.ts";
import type { Store } from "../stores.ts";

const POLL_MS = 250;
const ARCHIVE_TIMEOUT_MS = 1_200_000;
// Load processes at the same time, so that sessions of several projects share segments.
const TOGETHER = 4;
const STAGE_SECONDS = 600;

const FULL = {
  projects: 20,
  sessions: 5000,
  batches: 1_000_000,
  batchBytes: 16 * 1024,
  /** Sessions that are read afterwards. */
  reads: 50,
};

export type ArchiveParameters = typeof FULL;

const QUICK: ArchiveParameters = { ...FULL, projects: 2, sessions: 80, batches: 4000, reads: 5 };

export const archivePhases = ["archive"];

const Created = Type.Object({ projectKey: Type.String() });

/** State of both stages in the database. */
type Stages = {
  landing: number;
  segments: number;
  segmentBytes: number;
  archives: number;
  archiveBytes: number;
  pieces: number;
  batches: number;
};

/**
 * Measures how `work` archives and merges what a server took in: half of the batches compressed,
 * several projects at a time.
 */
export async function runArchive(
  harness: Harness,
  findings: Findings,
  options: Options,
): Promise<ArchiveParameters> {
  const base = options.quick ? QUICK : FULL;
  const parameters = { ...base, batchBytes: options.bytes ?? base.batchBytes };
  await using store = await harness.stores.open("files");
  await using subject = await harness.startFloodgate(store);
  const sent = await load(harness, store, subject, parameters);
  const before = await untilFactsWritten(harness);
  if (before.batches !== sent)
    findings.failures.push(`${before.batches} of ${sent} batches are indexed`);
  const landing = await readSome(harness, subject, parameters.reads);
  const work = await archiveAll(harness, store, subject, sent);
  const archived = await readSome(harness, subject, parameters.reads);
  if (archived.bytes !== landing.bytes)
    findings.failures.push(`sessions have ${archived.bytes} bytes, and had ${landing.bytes}`);
  report(findings, { sent, before, landing, archived, ...work });
  return parameters;
}

/** Starts sessions in each project, and sends the same number of batches in each. */
async function load(
  harness: Harness,
  store: Store,
  subject: Subject,
  { projects, sessions, batches, batchBytes }: ArchiveParameters,
): Promise<number> {
  const plans: StagesPlan[] = [];
  for (let nth = 0; nth < projects; nth++) {
    const args = ["project", "create", `bench-${nth}`, "--platform", "ios", "--json"];
    const json = await harness.processes.run({
      script: harness.options.server,
      args,
      env: { ...harness.serverEnv(), ...store.env },
    });
    const { projectKey } = Value.Parse(Created, JSON.parse(json));
    for (const gzip of [false, true]) {
      const connections = Math.round(sessions / projects / 2);
      const requestsMax = Math.round(batches / projects / 2);
      plans.push({
        kind: "stages",
        url: subject.url,
        connections,
        work: { kind: "batch", bytes: batchBytes, projectKey, gzip },
        stages: [{ name: "sent", warmupSeconds: 0, seconds: STAGE_SECONDS, requestsMax }],
      });
    }
  }
  let sent = 0;
  for (let from = 0; from < plans.length; from += TOGETHER) {
    const label = `batches of ${Math.min(from + TOGETHER, plans.length)} of ${plans.length} groups`;
    const results = await harness.load.stagesTogether(label, plans.slice(from, from + TOGETHER));
    for (const { statuses } of results.flat()) sent += statuses["200"] ?? 0;
  }
  return sent;
}

/** Runs one `work` until all is archived and merged. */
async function archiveAll(harness: Harness, store: Store, subject: Subject, sent: number) {
  await using work = harness.processes.start({
    script: harness.options.server,
    args: ["work"],
    env: {
      ...harness.serverEnv(),
      ...store.env,
      ARCHIVE_AFTER_S: "1",
      OBJECT_GRACE_S: "1",
      // The seconds that an object of both stages is there are not measured.
      FEED_HOURS: "1",
    },
  });
  const postgres = () => (subject.postgres === undefined ? 0 : familyCpuSeconds(subject.postgres));
  const startedMs = performance.now();
  const postgresBefore = postgres();
  harness.progress.start("archiving");
  const archived = await until(harness, ({ landing }, stages) => {
    harness.progress.update(
      1 - landing / Math.max(1, stages.segments),
      `${count(landing)} segments`,
    );
    return landing === 0;
  });
  const archiving = (performance.now() - startedMs) / 1000;
  const cpu = cpuSeconds(work.pid);
  const postgresCpu = postgres() - postgresBefore;
  const written = archived.archiveBytes;
  harness.progress.stop();
  harness.progress.start("merging");
  let quietSince = performance.now();
  let last = archived.archives;
  const merged = await until(harness, ({ archives }) => {
    if (archives !== last) quietSince = performance.now();
    last = archives;
    return performance.now() - quietSince > 90_000;
  });
  harness.progress.stop();
  const sql = harness.database;
  await sql`vacuum full session_pieces`;
  await sql`vacuum full segments`;
  await sql`vacuum full batches`;
  const [tables] = await sql<[{ bytes: number }]>`
    select (pg_total_relation_size('session_pieces') + pg_total_relation_size('segments')
      + pg_total_relation_size('archives') + pg_total_relation_size('batches'))::float8 as bytes`;
  return {
    merged,
    written,
    tableBytes: tables.bytes,
    archiving,
    cpuMicroseconds: (cpu / sent) * 1e6,
    postgresMicroseconds: (postgresCpu / sent) * 1e6,
    totalMicroseconds: (cpuSeconds(work.pid) / sent) * 1e6,
    rssPeak: peakRssBytes(work.pid) ?? Number.NaN,
  };
}

async function untilFactsWritten(harness: Harness): Promise<Stages> {
  const deadline = Date.now() + 60_000;
  for (;;) {
    const [due] = await harness.database<[{ due: number }]>`
      select count(*)::integer as due from segments where not facts_written and not deleted`;
    if (due.due === 0) return await stagesOf(harness);
    if (Date.now() > deadline) throw new Error("the facts of sessions were not written");
    await Bun.sleep(POLL_MS);
  }
}

async function until(
  harness: Harness,
  isDone: (now: Stages, first: Stages) => boolean,
): Promise<Stages> {
  const deadline = Date.now() + ARCHIVE_TIMEOUT_MS;
  const first = await stagesOf(harness);
  for (;;) {
    const now = await stagesOf(harness);
    if (isDone(now, first)) return now;
    if (Date.now() > deadline) throw new Error(`not archived in time: ${JSON.stringify(now)}`);
    await Bun.sleep(POLL_MS);
  }
}

async function stagesOf(harness: Harness): Promise<Stages> {
  const [row] = await harness.database<[Stages]>`
    select
      (select count(*) from segments where archived_at is null and not deleted)::integer as landing,
      (select count(*) from segments)::integer as segments,
      (select coalesce(sum(bytes), 0) from segments)::float8 as "segmentBytes",
      (select count(*) from archives)::integer as archives,
      (select coalesce(sum(bytes), 0) from archives)::float8 as "archiveBytes",
      (select count(*) from session_pieces)::integer as pieces,
      (select count(*) from batches)::integer as batches`;
  return row;
}

/** Reads some sessions whole, one after another. */
async function readSome(harness: Harness, { url }: Subject, reads: number) {
  const sessions = await harness.database<{ id: string }[]>`
    select id::text from sessions order by md5(id::text) limit ${reads}`;
  const took: number[] = [];
  let bytes = 0;
  for (const { id } of sessions) {
    const startedMs = performance.now();
    const response = await fetch(`${url}/v1/sessions/${id}/batches`, {
      headers: { "X-Server-Key": SERVER_KEY, Accept: "application/octet-stream" },
    });
    bytes += (await response.bytes()).length;
    took.push(performance.now() - startedMs);
  }
  return { bytes, p50: median(took) };
}

type Figures = Awaited<ReturnType<typeof archiveAll>> & {
  sent: number;
  before: Stages;
  landing: { bytes: number; p50: number };
  archived: { bytes: number; p50: number };
};

function report(findings: Findings, figures: Figures): void {
  const { sent, before, merged, written, archiving, landing, archived } = figures;
  const perMillion = (bytes: number) => (bytes / sent) * 1e6;
  findings.section(
    `Archiving ${count(sent)} batches by one work`,
    ["archived", "CPU/batch", "with merging", "PostgreSQL", "peak memory"],
    [
      [
        `${perSecond(sent / archiving)} in ${seconds(archiving)}`,
        microseconds(figures.cpuMicroseconds),
        microseconds(figures.totalMicroseconds),
        microseconds(figures.postgresMicroseconds),
        mib(figures.rssPeak),
      ],
    ],
  );
  findings.section(
    "Stored",
    ["", "objects", "bytes", "rows of batches and pieces"],
    [
      ["before", count(before.segments), mib(before.segmentBytes), count(before.batches)],
      [
        "after",
        count(merged.archives),
        mib(merged.archiveBytes),
        count(merged.pieces + merged.batches),
      ],
    ],
    `${megabytes(written / archiving)} of archives were written before they were merged`,
  );
  findings.section(
    "Reading a session whole, p50",
    ["before", "after"],
    [[ms(landing.p50), ms(archived.p50)]],
  );
  findings.atLeast("archiving", sent / archiving, 10_000, perSecond);
  findings.atMost("CPU of archiving a batch", figures.cpuMicroseconds, 40, microseconds);
  findings.atMost("memory while archiving", figures.rssPeak, 300 * 2 ** 20, mib);
  findings.atMost(
    "stored bytes after/before",
    merged.archiveBytes / before.segmentBytes,
    0.5,
    times,
  );
  findings.atMost("PostgreSQL per million batches", perMillion(figures.tableBytes), 4e6, mib);
}
