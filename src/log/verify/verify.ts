import { type Sql } from "../../platform/database/database.ts";
import { retryOutages } from "../../platform/database/retry-outages.ts";
import { ObjectDamaged, ObjectMissing, type ObjectStore } from "../../platform/objects/objects.ts";
import { readChecked } from "../checked-segment.ts";
import { isLive } from "../recovery/missing-objects.ts";
import { readAhead } from "../../platform/streams.ts";
import { NO_ID } from "../recovery/reindex.ts";
import { SegmentError } from "../record.ts";
import { segmentIdOf, segmentKey } from "../segment.ts";
import { markReadable, markUnreadable } from "../unreadable.ts";
import { type Evidence } from "./evidence.ts";
import { type Finding, type SegmentFinding, type State } from "./finding.ts";
import { VerifyArchives, takeOutArchives } from "./archives.ts";
import { GoneSegments } from "./gone-objects.ts";
import { LostRows, type OnSteps } from "./lost-rows.ts";
import { type IndexedSegment, type TableName } from "./referring-rows.ts";
import { allSegments, listedSegments, projectSegments } from "./segments.ts";

const PAGE_ROWS = 1000;
const GONE = "the object is gone";

/** Reads of `objects` must be conclusive: what fails otherwise ends the check. */
export type VerifyDeps = { sql: Sql; objects: ObjectStore };
export type VerifyOptions = {
  /** Looks only whether objects are there, not at their bytes. */
  quick: boolean;
  /** Restricts the check to what rows of this project name. */
  project?: number | undefined;
  onSteps?: OnSteps | undefined;
};

/**
 * Checks that the objects that rows name are there and whole. Servers may keep running. It changes
 * nothing but the marks of unreadable segments, and can be interrupted at any time and run again.
 */
export class Verify {
  readonly #deps: VerifyDeps;
  readonly #options: VerifyOptions;
  /** Numbers of segments and archives that were checked, and of batches and images in rows. */
  readonly checked = { segments: 0, archives: 0, batches: 0, images: 0 };

  constructor(deps: VerifyDeps, options: VerifyOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  /** Yields lost segments and archives, then the affected sessions, then lost images. */
  async *run(): AsyncGenerator<Finding> {
    const { quick, project, onSteps } = this.#options;
    if (!quick) yield* this.#readSegments();
    else if (project === undefined) yield* this.#listSegments();
    else yield* this.#askForSegments(project);
    const onArchives = (archives: number) => this.#countArchives(archives);
    yield* new VerifyArchives(this.#deps, { quick, project, onArchives }).run();
    yield* new LostRows(this.#deps, {
      quick,
      project,
      onRows: (table, counted) => this.#countRows(table, counted),
      onSteps,
    }).run();
  }

  /** Returns about how many steps there are: rows, or twice the project's sessions. */
  async steps(): Promise<number> {
    const { sql } = this.#deps;
    const { project } = this.#options;
    const [row] =
      project === undefined
        ? await sql<[{ steps: number }]>`
            select coalesce(sum(greatest(reltuples, 0)), 0)::float8 as steps from pg_class where oid in
              ('segments'::regclass, 'archives'::regclass, 'batches'::regclass, 'session_pieces'::regclass, 'image_uses'::regclass,
                'image_contents'::regclass, 'images'::regclass)`
        : await sql<[{ steps: number }]>`
            select 2 * count(*)::float8 as steps from sessions where project_id = ${project}`;
    return row.steps;
  }

  async *#readSegments(): AsyncGenerator<Finding> {
    const { sql } = this.#deps;
    const { project } = this.#options;
    const segments = project === undefined ? allSegments(sql) : this.#segmentsOf(project);
    yield* readAhead(segments, async (segment) => await this.#read(segment));
  }

  async *#listSegments(): AsyncGenerator<Finding> {
    for await (const { missing, present } of listedSegments(this.#deps)) {
      this.#countSegments(missing.length + present);
      for (const key of missing) yield await this.#lost("missing", key, GONE);
    }
  }

  async *#askForSegments(project: number): AsyncGenerator<Finding> {
    const { objects } = this.#deps;
    const gone = new GoneSegments(objects);
    const ask = async ({ id }: IndexedSegment) => {
      this.#countSegments(1);
      return (await gone.among([id])).size === 0 ? undefined : await this.#missing(segmentKey(id));
    };
    yield* readAhead(this.#segmentsOf(project), ask);
  }

  #segmentsOf(project: number): AsyncGenerator<IndexedSegment> {
    const onSessions = (sessions: number) => this.#options.onSteps?.(sessions);
    return projectSegments(this.#deps.sql, project, onSessions);
  }

  /** Reads a segment whole; returns undefined if all of it is as it was written. */
  async #read({ id, bytes, unreadable }: IndexedSegment): Promise<SegmentFinding | undefined> {
    const { sql, objects } = this.#deps;
    const key = segmentKey(id);
    this.#countSegments(1);
    try {
      const { problem } = await readChecked(objects, { key, bytes });
      if (problem !== undefined) return await this.#lost("damaged", key, problem);
      if (unreadable) await retryOutages(async () => await markReadable(sql, id));
      return undefined;
    } catch (error) {
      if (error instanceof ObjectMissing) return await this.#missing(key);
      if (!(error instanceof SegmentError || error instanceof ObjectDamaged)) throw error;
      return await this.#lost("damaged", key, error.message);
    }
  }

  /** Returns undefined if the segment was deleted as an orphan meanwhile. */
  async #missing(key: string): Promise<SegmentFinding | undefined> {
    if (!(await isLive(this.#deps.sql, key))) return undefined;
    return await this.#lost("missing", key, GONE);
  }

  async #lost(state: State, key: string, reason: string): Promise<SegmentFinding> {
    const id = segmentIdOf(key);
    if (id !== undefined)
      await retryOutages(async () => await markUnreadable(this.#deps.sql, [id]));
    return { what: "segment", state, key, reason };
  }

  #countSegments(segments: number): void {
    this.checked.segments += segments;
    if (this.#options.project === undefined) this.#options.onSteps?.(segments);
  }

  #countArchives(archives: number): void {
    this.checked.archives += archives;
    if (this.#options.project === undefined) this.#options.onSteps?.(archives);
  }

  #countRows(table: TableName, counted: number): void {
    if (table === "batches" || table === "session_pieces") this.checked.batches += counted;
    else if (table !== "image_uses") this.checked.images += counted;
  }
}

/**
 * Takes out rows whose objects are gone, as the store says once more, and yields what was taken
 * out. Run it after Verify, which marks the segments. Segments come first, unless it is done for
 * one project, because others share them: should an object come back, even before the end, it is
 * adopted as an orphan, with the rows that were taken out. So they get no tombstone, with which it
 * would be deleted. Their marks stay, for records of images that still name them. An archive has one
 * project, so that its row goes, too.
 */
export async function* takeOutLost(
  deps: VerifyDeps,
  options: { project?: number | undefined; evidence: Evidence; onSteps?: OnSteps | undefined },
): AsyncGenerator<Finding> {
  const { project, evidence } = options;
  if (project === undefined) yield* takeOutSegments(deps, evidence);
  yield* takeOutArchives(deps, options);
  yield* new LostRows(deps, { quick: true, ...options }).run();
}

async function* takeOutSegments(
  { sql, objects }: VerifyDeps,
  evidence: Evidence,
): AsyncGenerator<Finding> {
  const segments = new GoneSegments(objects);
  for (let after: string | undefined = NO_ID; after !== undefined;) {
    const from: string = after;
    const marked = await retryOutages(
      async () =>
        await sql<{ id: string }[]>`
        select id from segments join unreadable_segments on segment_id = id
        where id > ${from} and not deleted order by id limit ${PAGE_ROWS}`,
    );
    const gone = [...(await segments.among(marked.map(({ id }) => id)))];
    if (gone.length > 0) {
      await evidence.demand();
      await retryOutages(
        async () => await sql`delete from segments where id = any(${gone}) and not deleted`,
      );
    }
    for (const id of gone)
      yield { what: "segment", state: "missing", key: segmentKey(id), reason: GONE };
    after = marked.length < PAGE_ROWS ? undefined : marked.at(-1)?.id;
  }
}
