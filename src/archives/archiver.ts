import pLimit from "p-limit";

import { FLAG } from "../log/record.ts";
import { batchBody } from "../log/segment-reader.ts";
import { markUnreadable } from "../log/unreadable.ts";
import { type Clock } from "../platform/clock.ts";
import { type Sql } from "../platform/database/database.ts";
import { discarded } from "../platform/gc.ts";
import { repeatSteps } from "../platform/lifecycle.ts";
import { type Log } from "../platform/logger.ts";
import { type ObjectStore } from "../platform/objects/objects.ts";
import { warnRarely } from "../platform/rare-warnings.ts";
import { gathered } from "../platform/streams.ts";
import { type WorkMetrics } from "../platform/telemetry/work-metrics.ts";
import { archiveKey } from "./archive-key.ts";
import { ArchiveWriter } from "./archive-writer.ts";
import { type Group, groupRecords } from "./groups.ts";
import {
  type FoundRecord,
  type ReadSegment,
  SEGMENTS_MAX,
  endLease,
  isOldVersionServing,
  keepLease,
  leaseSegments,
  readSegments,
} from "./leased-segments.ts";
import { type ObjectGarbage, keepObjects } from "./object-garbage.ts";
import { type ArchivedBatch } from "./piece-index.ts";
import { PieceWriter } from "./piece-writer.ts";
import { type Archive, type Piece } from "./piece.ts";
import { type MovedBatch, swapIn } from "./swap.ts";

const WRITES_AT_A_TIME = 4;

export type ArchiverDeps = {
  sql: Sql;
  objects: ObjectStore;
  garbage: ObjectGarbage;
  clock: Clock;
  metrics: Pick<WorkMetrics, "countArchived" | "archiveFailures">;
  log: Log;
};

/** Points of a step between which a process may be killed. */
export type Moment = "leased" | "read" | "written" | "swapping" | "swapped";

export type ArchiverOptions = {
  /** Age from which segments are archived. */
  afterS: number;
  /** Time from one look at what is due to the next. */
  everyMs: number;
  /** Called and awaited at each moment of a step; what it throws fails the step. */
  at?: (moment: Moment) => void | Promise<void>;
};

type Written = { archive: Archive; pieces: Piece[]; batches: MovedBatch[] };

/**
 * Moves batches and rows from segments into archives of one project and day each. Several processes
 * may do so at once: leases keep them from reading the same segments, and the transaction that swaps
 * the rows makes sure that each record is moved once even if leases overlap.
 */
export class Archiver {
  readonly #deps: ArchiverDeps;
  readonly #options: ArchiverOptions;
  /** Halved when a step fails, so that a segment that cannot be archived ends up alone. */
  #segmentsMax = SEGMENTS_MAX;

  constructor(deps: ArchiverDeps, options: ArchiverOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  /** Archives what is due repeatedly until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    await repeatSteps(
      this.#options.everyMs,
      signal,
      async () => await this.step(signal),
      (error) => {
        if (!signal.aborted) warnRarely(this.#deps.log, { err: error }, "nothing was archived");
      },
    );
  }

  /** Archives some of the segments that are due; returns whether there may be more. */
  async step(signal = new AbortController().signal): Promise<boolean> {
    const { sql, metrics, log } = this.#deps;
    const { afterS } = this.#options;
    if (await isOldVersionServing(sql)) {
      warnRarely(log, {}, "nothing is archived while processes of an older version serve");
      return false;
    }
    const leased = await leaseSegments(sql, { afterS, segmentsMax: this.#segmentsMax });
    if (leased.length === 0) return false;
    using _ = keepLease(this.#deps, leased);
    try {
      await this.#reach("leased");
      const segments = await readSegments(this.#deps, leased, signal);
      await this.#reach("read");
      if (segments.length > 0) await this.#archive(segments, signal);
      this.#segmentsMax = Math.min(SEGMENTS_MAX, 2 * this.#segmentsMax);
      return true;
    } catch (error) {
      // Otherwise the lease runs out, so that others come first.
      if (signal.aborted) await endLease(sql, leased).catch(() => undefined);
      else metrics.archiveFailures.inc();
      this.#segmentsMax = Math.max(1, Math.floor(this.#segmentsMax / 2));
      throw error;
    }
  }

  /** Returns the age of the oldest segment that is to be archived and can be read; 0 if there is none. */
  async oldestSeconds(): Promise<number> {
    const [row] = await this.#deps.sql<{ seconds: number }[]>`
      select greatest(0, extract(epoch from now() - created_at))::float8 as seconds from segments
      where archived_at is null and not deleted and not exists (select from unreadable_segments where segment_id = id)
      order by id limit 1`;
    return row?.seconds ?? 0;
  }

  /** Writes the archives, and then swaps the rows in one transaction. */
  async #archive(segments: ReadSegment[], signal: AbortSignal): Promise<void> {
    const { sql, garbage, clock, metrics } = this.#deps;
    const { groups, known } = await groupRecords(sql, segments);
    const ids = groups.map(() => Bun.randomUUIDv7("hex", clock.epochMs()));
    const keys = groups.map((group, nth) => archiveKey({ ...group, id: ids[nth] ?? "" }));
    using held = await garbage.begin(keys);
    let written: Written[];
    let unfinished: string[];
    try {
      const ending = AbortSignal.any([signal, held.signal]);
      written = await writeAll(this.#deps.objects, groups, ids, ending);
      await this.#reach("written");
      unfinished = await sql.begin(async (transaction) => {
        await keepObjects(transaction, keys);
        const referred = await swapIn(transaction, {
          archives: written.map(({ archive }) => archive),
          pieces: written.flatMap(({ pieces }) => pieces),
          batches: written.flatMap(({ batches }) => batches),
          sessions: known,
          segments,
        });
        await this.#reach("swapping");
        return referred;
      });
    } catch (error) {
      await garbage.discard(keys);
      throw error;
    }
    await this.#reach("swapped");
    // A row without a readable record stays: it is archived once the segment can be read.
    await markUnreadable(sql, unfinished);
    const readBytes = segments.reduce((sum, { bytes }) => sum + bytes, 0);
    const archives = written.map(({ archive }) => archive);
    metrics.countArchived({ segments: segments.length - unfinished.length, readBytes, archives });
    discarded(readBytes);
  }

  async #reach(moment: Moment): Promise<void> {
    await this.#options.at?.(moment);
  }
}

/** Writes an archive for each group. If one fails, ends the others before it throws. */
async function writeAll(
  objects: ObjectStore,
  groups: Group[],
  ids: string[],
  signal: AbortSignal,
): Promise<Written[]> {
  const failed = new AbortController();
  const ending = AbortSignal.any([signal, failed.signal]);
  const limit = pLimit(WRITES_AT_A_TIME);
  const writes = groups.map((group, nth) =>
    limit(async () => {
      ending.throwIfAborted();
      return await writeGroup(objects, group, { id: ids[nth] ?? "", signal: ending });
    }).catch((error: unknown) => {
      failed.abort(error);
      throw error;
    }),
  );
  await Promise.allSettled(writes);
  return await Promise.all(writes);
}

async function writeGroup(
  objects: ObjectStore,
  group: Group,
  { id, signal }: { id: string; signal: AbortSignal },
): Promise<Written> {
  const { kind, projectId, day, sessions } = group;
  const records = sessions.flatMap((session) => session.records);
  const sources = [...new Set(records.map(({ segmentId }) => segmentId))];
  const archive = new ArchiveWriter(id, sources);
  const pieces: Piece[] = [];
  const batches: MovedBatch[] = [];
  function* bytes(): Generator<Uint8Array> {
    yield archive.begin();
    if (kind === "projects")
      for (const { entry, body } of records) {
        yield archive.add(entry, body);
        yield body;
      }
    else
      for (const session of sessions) {
        const head = { archiveId: id, projectId, sessionId: session.id };
        const moved = yield* pieceBytes(new PieceWriter(archive, head), session.records, pieces);
        for (const origin of moved) batches.push({ ...origin, sessionId: session.id });
      }
    yield archive.end();
  }
  await objects.upload(archiveKey({ id, projectId, day }), gathered(bytes()), signal);
  const { bytes: size, records: count } = archive;
  return { archive: { id, projectId, day, kind, bytes: size, records: count }, pieces, batches };
}

/** Writes the records of a session, and returns those batches that could be inflated. */
function* pieceBytes(
  writer: PieceWriter,
  records: FoundRecord[],
  pieces: Piece[],
): Generator<Uint8Array, ArchivedBatch[]> {
  const rows = records.filter(({ entry }) => entry.kind !== "batch");
  for (const { segmentId, entry, body } of rows)
    yield* writer.addRow(entry, body, { segmentId, offset: entry.offset });
  const moved: ArchivedBatch[] = [];
  for (const record of records) {
    const inflated = record.entry.kind === "batch" ? inflate(record) : undefined;
    if (inflated === undefined) continue;
    yield* writer.addBatch(inflated.batch, inflated.body);
    moved.push(inflated.batch);
  }
  const piece = yield* writer.end();
  if (rows.length + moved.length > 0) pieces.push(piece);
  return moved;
}

/** Returns a batch as its client encoded it, or undefined if it does not inflate to that. */
function inflate({
  segmentId,
  entry,
  body,
}: FoundRecord): { batch: ArchivedBatch; body: Uint8Array } | undefined {
  const { offset, flags, receivedAt, facts } = entry;
  if (facts === undefined) return undefined;
  try {
    const content = batchBody(body, { flags, bytes: facts.bytes });
    if (content !== body) discarded(content.length);
    if (Bun.hash.xxHash3(content) !== facts.hash) return undefined;
    const plain = flags & ~FLAG.gzip;
    return { batch: { segmentId, offset, flags: plain, receivedAt, ...facts }, body: content };
  } catch {
    return undefined;
  }
}
