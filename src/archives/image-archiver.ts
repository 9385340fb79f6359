import { SegmentReader } from "../log/segment-reader.ts";
import { segmentIdOf } from "../log/segment.ts";
import { markUnreadable } from "../log/unreadable.ts";
import { type Clock } from "../platform/clock.ts";
import { type Queryable, type Sql } from "../platform/database/database.ts";
import { unnested } from "../platform/database/unnested.ts";
import { repeatSteps } from "../platform/lifecycle.ts";
import { type Log } from "../platform/logger.ts";
import { Lost } from "../platform/objects/read-faults.ts";
import { type ObjectStore } from "../platform/objects/objects.ts";
import { warnRarely } from "../platform/rare-warnings.ts";
import { gathered } from "../platform/streams.ts";
import { type WorkMetrics } from "../platform/telemetry/work-metrics.ts";
import { archiveKey } from "./archive-key.ts";
import {
  HELD_BYTES,
  ImageArchive,
  type LandedContent,
  type PlacedContent,
} from "./image-archive.ts";
import { isOldVersionServing } from "./leased-segments.ts";
import { type ObjectGarbage, keepObjects } from "./object-garbage.ts";
import { type Archive, insertArchives } from "./piece.ts";
import { Overtaken } from "./swap.ts";

// Images that a step takes; a longer one is a step of its own.
const STEP_BYTES = 64 * 2 ** 20;
const STEP_IMAGES = 5000;
// Images that are worth a step before the oldest has waited twice the time.
const WORTH_BYTES = STEP_BYTES / 2;
// Time until others take up the images of a process that was killed.
const LEASE_S = 600;
// Time until unreadable images are tried again.
const UNREADABLE_S = 86_400;
const KEY = { project_id: "integer", name: "text", sha256: "text" } as const;

export type ImageArchiverDeps = {
  sql: Sql;
  objects: ObjectStore;
  garbage: Pick<ObjectGarbage, "begin" | "discard">;
  clock: Clock;
  metrics: Pick<WorkMetrics, "countArchived" | "archiveFailures">;
  log: Log;
};

/** Points of a step at which a process may be killed. */
export type ImageMoment = "claimed" | "written" | "swapping" | "swapped";

export type ImageArchiverOptions = {
  /** Age from which images are archived. */
  afterS: number;
  /** Time from one look at what is due to the next. */
  everyMs: number;
  /** Called and awaited at each of them; what it throws fails the step. */
  at?: (moment: ImageMoment) => void | Promise<void>;
};

/**
 * Moves images from segments to archives, some time after they were stored. Several processes may
 * run it: each claims images for a while, and moves them only if they are where they were.
 */
export class ImageArchiver {
  readonly #deps: ImageArchiverDeps;
  readonly #reader: SegmentReader;
  readonly #options: ImageArchiverOptions;

  constructor(deps: ImageArchiverDeps, options: ImageArchiverOptions) {
    this.#deps = deps;
    this.#reader = new SegmentReader(deps.objects);
    this.#options = options;
  }

  /** Archives images as they become old enough, until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    const { metrics, log } = this.#deps;
    await repeatSteps(
      this.#options.everyMs,
      signal,
      async () => (await this.step(signal)) > 0,
      (error) => {
        if (signal.aborted) return;
        metrics.archiveFailures.inc();
        warnRarely(log, { err: error }, "images were not archived");
      },
    );
  }

  /**
   * Archives the images that have been stored longest, if it is worth a step, and returns the number
   * of those it tried.
   */
  async step(signal = new AbortController().signal): Promise<number> {
    if (await isOldVersionServing(this.#deps.sql)) return 0;
    if (!(await this.#isWorthwhile())) return 0;
    const claimed = await this.#claim();
    const left = new Set(claimed);
    try {
      await this.#reach("claimed");
      for (const group of groupsOf(claimed)) {
        await this.#archive(group, signal);
        for (const content of group.contents) left.delete(content);
      }
    } finally {
      await this.#lease([...left], 0);
    }
    return claimed.length;
  }

  get #isDue() {
    const { sql } = this.#deps;
    return sql`archive_id is null and stored_at < now() - ${this.#options.afterS} * interval '1 second'
      and (leased_until is null or leased_until < now())`;
  }

  async #isWorthwhile(): Promise<boolean> {
    const { sql } = this.#deps;
    const [row] = await sql<[{ isWorthwhile: boolean }]>`
      select count(*) = ${STEP_IMAGES} or coalesce(sum(bytes) >= ${WORTH_BYTES}, false)
        or coalesce(min(stored_at) < now() - ${2 * this.#options.afterS} * interval '1 second', false) as "isWorthwhile"
      from (select bytes, stored_at from image_contents where ${this.#isDue} order by stored_at limit ${STEP_IMAGES}) as due`;
    return row.isWorthwhile;
  }

  async #claim(): Promise<LandedContent[]> {
    const { sql } = this.#deps;
    return await sql<LandedContent[]>`
      with due as materialized (
        select project_id, name, sha256, stored_at, bytes from image_contents where ${this.#isDue}
        order by stored_at limit ${STEP_IMAGES} for no key update skip locked
      ), summed as (
        select *, sum(bytes) over (order by stored_at, project_id, name, sha256) - bytes as before from due
      ), claimed as (
        update image_contents as content set leased_until = now() + ${LEASE_S} * interval '1 second' from summed
        where (content.project_id, content.name, content.sha256) = (summed.project_id, summed.name, summed.sha256)
          and before < ${STEP_BYTES}
        returning content.*
      )
      select chunk_segments as segments, chunk_offsets as offsets, chunk_lengths as lengths, json_build_object(
          'project_id', project_id, 'name', name, 'sha256', encode(sha256, 'hex'), 'kind', kind, 'content_type', content_type,
          'bytes', bytes, 'crc32', crc32, 'uses', uses,
          'stored_at', to_char(stored_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
          'network', network, 'network_session', network_session::text, 'shared', shared
        ) as row
      from claimed order by stored_at, project_id, name, sha256`;
  }

  /** Extends the lease of images that are not archived, or ends it. */
  async #lease(contents: LandedContent[], seconds: number): Promise<void> {
    if (contents.length === 0) return;
    const { sql } = this.#deps;
    const rows = contents.map(({ row }) => row);
    await sql`
      with locked as materialized (
        select content.project_id, content.name, content.sha256
        from ${unnested(sql, rows, KEY)} join image_contents as content
          on (content.project_id, content.name, content.sha256) = (record.project_id, record.name, decode(record.sha256, 'hex'))
        where content.archive_id is null
        order by content.project_id, content.name, content.sha256 for no key update of content
      )
      update image_contents as content set leased_until = now() + ${seconds} * interval '1 second' from locked
      where (content.project_id, content.name, content.sha256) = (locked.project_id, locked.name, locked.sha256)`;
  }

  async #archive({ contents, ...group }: Group, signal: AbortSignal): Promise<void> {
    const { objects, garbage, clock } = this.#deps;
    const name = { id: Bun.randomUUIDv7("hex", clock.epochMs()), ...group };
    const key = archiveKey(name);
    const archive = new ImageArchive(name.id, this.#reader);
    const { placed, unreadable } = archive;
    using writing = await garbage.begin([key]);
    const ending = AbortSignal.any([signal, writing.signal]);
    try {
      await objects.upload(key, gathered(archive.write(contents, ending)), ending);
      await this.#reach("written");
      const { bytes, records } = archive;
      if (placed.length === 0) await garbage.discard([key]);
      else await this.#swap({ ...name, kind: "images", bytes, records }, placed);
    } catch (error) {
      await garbage.discard([key]);
      if (unreadable.length < contents.length) throw error;
    }
    await this.#reach("swapped");
    await this.#postpone(unreadable);
  }

  async #swap(archive: Archive, placed: PlacedContent[]): Promise<void> {
    const { sql, metrics } = this.#deps;
    await sql.begin(async (transaction) => {
      await keepObjects(transaction, [archiveKey(archive)]);
      await insertArchives(transaction, [archive], []);
      await moveToArchive(transaction, archive.id, placed);
      await this.#reach("swapping");
    });
    const readBytes = placed.reduce((sum, { content }) => sum + content.row.bytes, 0);
    metrics.countArchived({ segments: 0, readBytes, archives: [archive] });
  }

  async #reach(moment: ImageMoment): Promise<void> {
    await this.#options.at?.(moment);
  }

  /** Marks the segments, as readers do, so that these images are stored anew when they are sent again. */
  async #postpone(unreadable: ImageArchive["unreadable"]): Promise<void> {
    const [first] = unreadable;
    if (first === undefined) return;
    const { sql, log } = this.#deps;
    const keys = new Set(
      unreadable.flatMap(({ cause }) => (cause instanceof Lost ? cause.key : [])),
    );
    const ids = [...keys].map(segmentIdOf).filter((id) => id !== undefined);
    await markUnreadable(sql, ids);
    const contents = unreadable.map(({ content }) => content);
    await this.#lease(contents, UNREADABLE_S);
    warnRarely(
      log,
      { err: first.cause, image: first.content.row.name, images: contents.length },
      "images cannot be read, and stay where they are",
    );
  }
}

/** Contents that go into one archive. */
type Group = Pick<Archive, "projectId" | "day"> & { contents: LandedContent[] };

/** Groups contents by project and day. A long one is a group of its own, because it is not held. */
function groupsOf(contents: LandedContent[]): Group[] {
  const groups = Map.groupBy(contents, (content) => {
    const { project_id: projectId, stored_at: storedAt, bytes } = content.row;
    return bytes > HELD_BYTES ? content : `${projectId}/${dayIn(storedAt)}`;
  });
  return [...groups.values()].flatMap((group) => {
    const [first] = group;
    if (first === undefined) return [];
    const { project_id: projectId, stored_at: storedAt } = first.row;
    return [{ projectId, day: dayIn(storedAt), contents: group }];
  });
}

function dayIn(iso: string): string {
  return iso.slice(0, 10);
}

/** Changes the places of contents, in a transaction. Throws if another process has changed one. */
async function moveToArchive(
  sql: Queryable,
  archiveId: string,
  placed: PlacedContent[],
): Promise<void> {
  const rows = placed.map(({ content: { row, segments, offsets }, offset, length }) => ({
    project_id: row.project_id,
    name: row.name,
    sha256: row.sha256,
    segments,
    offsets,
    place: offset,
    size: length,
  }));
  const types = { ...KEY, segments: "text", offsets: "text", place: "bigint", size: "bigint" };
  const { count } = await sql`
    with unchanged as materialized (
      select content.project_id, content.name, content.sha256, place, size
      from ${unnested(sql, rows, types)} join image_contents as content
        on (content.project_id, content.name, content.sha256) = (record.project_id, record.name, decode(record.sha256, 'hex'))
      where archive_id is null and chunk_segments = segments::uuid[] and chunk_offsets = offsets::integer[]
      -- In the same order as indexing: otherwise two transactions could deadlock.
      order by content.project_id, content.name, content.sha256 for no key update of content
    )
    update image_contents as content
    set chunk_segments = '{}', chunk_offsets = '{}', chunk_lengths = '{}',
      archive_id = ${archiveId}, archive_offset = place, archive_length = size, leased_until = null
    from unchanged
    where (content.project_id, content.name, content.sha256) = (unchanged.project_id, unchanged.name, unchanged.sha256)`;
  if (count !== placed.length) throw new Overtaken("an image was moved or deleted meanwhile");
}
