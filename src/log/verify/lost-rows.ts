import { LRUCache } from "lru-cache";

import { type Sql } from "../../platform/database/database.ts";
import { retryOutages } from "../../platform/database/retry-outages.ts";
import { type ObjectStore } from "../../platform/objects/objects.ts";
import { Lost } from "../../platform/objects/read-faults.ts";
import { SegmentReader } from "../segment-reader.ts";
import { markUnreadable } from "../unreadable.ts";
import { type Evidence } from "./evidence.ts";
import { type Finding, type SessionFinding, type State } from "./finding.ts";
import { GoneSegments } from "./gone-segments.ts";
import { type ReferringRow, type Scope, type TableName, suspectRows } from "./referring-rows.ts";
import { sessionPages } from "./segments.ts";
import { takeOut } from "./take-out.ts";

const READ_MAX = 100_000;

/** Called with the number of steps since the last call: rows, or sessions of the project. */
export type OnSteps = (steps: number) => void;

export type LostRowsOptions = {
  /** Looks only whether objects are there. */
  quick: boolean;
  /** Restricts the search to the rows of a project. */
  project?: number | undefined;
  /** If set, rows whose objects are gone are taken out, and only these are found. */
  evidence?: Evidence | undefined;
  onRows?: (table: TableName, rows: number) => void;
  onSteps?: OnSteps | undefined;
};

type LostRow = ReferringRow & { state: State };

/**
 * Finds the rows of batches and images whose records are lost. Looks closer only at rows of
 * segments that are marked as unreadable or have no row, so these must be marked before. Marks
 * those that it finds to be gone.
 */
export class LostRows {
  readonly #sql: Sql;
  readonly #reader: SegmentReader;
  readonly #gone: GoneSegments;
  readonly #options: LostRowsOptions;
  /** States of records that were read, by where the first of a row begins. */
  readonly #read = new LRUCache<string, State | "whole">({ max: READ_MAX });

  constructor({ sql, objects }: { sql: Sql; objects: ObjectStore }, options: LostRowsOptions) {
    this.#sql = sql;
    this.#reader = new SegmentReader(objects);
    this.#gone = new GoneSegments(objects);
    this.#options = options;
  }

  /**
   * Yields each affected session once in a state, and then each image. Uses of images are taken out
   * before the images, so that a run that is broken off leaves no use without its image.
   */
  async *run(): AsyncGenerator<Finding> {
    const { project, onSteps } = this.#options;
    if (project === undefined) yield* this.#ofSessions({});
    else
      for await (const sessions of sessionPages(this.#sql, project)) {
        yield* this.#ofSessions({ sessions });
        onSteps?.(sessions.length);
      }
    for (const table of ["image_contents", "images"] as const)
      for await (const { state, projectId, name, sha256 } of this.#rows(table, { project }))
        yield { what: "image", state, projectId: projectId || null, name: name ?? "", sha256 };
  }

  #ofSessions(scope: Scope): AsyncGenerator<SessionFinding> {
    return bySession(this.#rows("batches", scope), this.#rows("image_uses", scope));
  }

  async *#rows(table: TableName, scope: Scope): AsyncGenerator<LostRow> {
    const { project, evidence, onRows, onSteps } = this.#options;
    for await (const { found, rows } of suspectRows(this.#sql, table, scope)) {
      onRows?.(table, rows);
      if (project === undefined) onSteps?.(rows);
      const gone = await this.#gone.among(found.flatMap(({ ids }) => ids));
      await this.#mark(gone);
      const missing = found.filter(({ ids }) => ids.some((id) => gone.has(id)));
      if (evidence === undefined) yield* await this.#inState(found, new Set(missing));
      else if (missing.length > 0) {
        await evidence.demand();
        for (const row of await takeOut(this.#sql, table, missing, gone))
          yield { ...row, state: "missing" };
      }
    }
  }

  async #inState(rows: ReferringRow[], missing: Set<ReferringRow>): Promise<LostRow[]> {
    if (!this.#options.quick) await this.#readRecords(rows.filter((row) => !missing.has(row)));
    return rows.flatMap((row) => {
      const state = missing.has(row) ? "missing" : this.#read.get(beginOf(row));
      return state === undefined || state === "whole" ? [] : [{ ...row, state }];
    });
  }

  /** Reads records, those of an image that many sessions sent only once. */
  async #readRecords(rows: ReferringRow[]): Promise<void> {
    const unread = new Map(rows.map((row) => [beginOf(row), row]));
    for (const begin of unread.keys()) if (this.#read.has(begin)) unread.delete(begin);
    for (const begin of unread.keys()) this.#read.set(begin, "whole");
    const lost = new Set<string>();
    for await (const { place, body } of this.#reader.read([...unread].flatMap(placesOf))) {
      if (!(body instanceof Lost)) continue;
      lost.add(place.segmentId);
      if (this.#read.get(place.begin) !== "missing") this.#read.set(place.begin, body.reason);
    }
    await this.#mark(lost);
  }

  async #mark(ids: Set<string>): Promise<void> {
    await retryOutages(async () => await markUnreadable(this.#sql, [...ids]));
  }
}

function beginOf({ ids, offsets }: ReferringRow): string {
  return `${ids[0]}/${offsets[0]}`;
}

function placesOf([begin, { ids, offsets, lengths }]: [string, ReferringRow]) {
  return ids.map((segmentId, nth) => ({
    segmentId,
    offset: offsets[nth] ?? 0,
    length: lengths[nth] ?? 0,
    begin,
  }));
}

/** Counts the rows of two tables, both in the order of sessions, by session and state. */
async function* bySession(
  batches: AsyncGenerator<LostRow>,
  uses: AsyncGenerator<LostRow>,
): AsyncGenerator<SessionFinding> {
  let [batch, use] = [await next(batches), await next(uses)];
  for (let row = earlier(batch, use); row !== undefined; row = earlier(batch, use)) {
    const { sessionId, projectId } = row;
    const counts = new Map<State, { batches: number; images: number }>();
    const count = ({ state }: LostRow, what: "batches" | "images") => {
      const sum = counts.get(state) ?? { batches: 0, images: 0 };
      counts.set(state, sum);
      sum[what]++;
    };
    for (; batch?.sessionId === sessionId; batch = await next(batches)) count(batch, "batches");
    for (; use?.sessionId === sessionId; use = await next(uses)) count(use, "images");
    const session = { sessionID: String(sessionId), projectId: projectId || null };
    for (const [state, sum] of counts) yield { what: "session", state, ...session, ...sum };
  }
}

async function next<Row>(rows: AsyncGenerator<Row>): Promise<Row | undefined> {
  const result = await rows.next();
  return result.done === true ? undefined : result.value;
}

function earlier(batch: LostRow | undefined, use: LostRow | undefined): LostRow | undefined {
  if (batch === undefined || use === undefined) return batch ?? use;
  return (batch.sessionId ?? 0n) <= (use.sessionId ?? 0n) ? batch : use;
}
