import { LRUCache } from "lru-cache";

import { type ArchiveName } from "../../archives/archive-key.ts";
import { type Sql } from "../../platform/database/database.ts";
import { retryOutages } from "../../platform/database/retry-outages.ts";
import { type ObjectStore } from "../../platform/objects/objects.ts";
import { Lost } from "../../platform/objects/read-faults.ts";
import { areReadable, lostBatches } from "../../archives/recovery/archived-rows.ts";
import { SegmentReader } from "../segment-reader.ts";
import { markUnreadable } from "../unreadable.ts";
import { type Evidence } from "./evidence.ts";
import { type Finding, type SessionFinding, type State } from "./finding.ts";
import { GoneArchives, GoneSegments, archiveNames } from "./gone-objects.ts";
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
  onRows?: (table: TableName, counted: number) => void;
  onSteps?: OnSteps | undefined;
};

/** `batches`: the number of those that are lost. */
type LostRow = ReferringRow & { state: State };

/**
 * Finds the rows of batches and images whose records are lost. Looks closer only at rows of
 * segments and archives that are marked as unreadable or have no row, so these must be marked
 * before. Marks those that it finds to be gone.
 */
export class LostRows {
  readonly #sql: Sql;
  readonly #objects: ObjectStore;
  readonly #reader: SegmentReader;
  readonly #goneSegments: GoneSegments;
  readonly #goneArchives: GoneArchives;
  readonly #options: LostRowsOptions;
  /** States of records that were read, by where the first of a row begins. */
  readonly #read = new LRUCache<string, State | "whole">({ max: READ_MAX });
  /** Numbers of batches that are lost of pieces that were read last. */
  #lostBatches = new Map<ReferringRow, number>();

  constructor({ sql, objects }: { sql: Sql; objects: ObjectStore }, options: LostRowsOptions) {
    this.#sql = sql;
    this.#objects = objects;
    this.#reader = new SegmentReader(objects);
    this.#goneSegments = new GoneSegments(objects);
    this.#goneArchives = new GoneArchives({ sql, objects });
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
    const tables = ["batches", "session_pieces", "image_uses"] as const;
    return bySession(tables.map((table) => this.#rows(table, scope)));
  }

  async *#rows(table: TableName, scope: Scope): AsyncGenerator<LostRow> {
    const { project, evidence, onRows, onSteps } = this.#options;
    for await (const { found, rows, counted } of suspectRows(this.#sql, table, scope)) {
      onRows?.(table, counted);
      if (project === undefined) onSteps?.(rows);
      const gone = await this.#goneAmong(found);
      const missing = found.filter(({ ids }) => ids.some((id) => gone.has(id)));
      if (evidence === undefined) yield* await this.#inState(found, new Set(missing));
      else if (missing.length > 0) {
        await evidence.demand();
        for (const row of await takeOut(this.#sql, table, missing, gone))
          yield { ...row, state: "missing" };
      }
    }
  }

  async #goneAmong(rows: ReferringRow[]): Promise<Set<string>> {
    const idsOf = (isArchived: boolean) =>
      rows.flatMap(({ ids, archived }) => (archived === isArchived ? ids : []));
    const segments = await this.#goneSegments.among(idsOf(false));
    const gone = segments.union(await this.#goneArchives.among(idsOf(true)));
    await this.#mark(gone);
    return gone;
  }

  async #inState(rows: ReferringRow[], missing: Set<ReferringRow>): Promise<LostRow[]> {
    this.#lostBatches = new Map();
    if (!this.#options.quick) await this.#readRecords(rows.filter((row) => !missing.has(row)));
    return rows.flatMap((row) => {
      const state = missing.has(row) ? "missing" : this.#read.get(beginOf(row));
      if (state === undefined || state === "whole") return [];
      return [{ ...row, state, batches: this.#lostBatches.get(row) ?? row.batches }];
    });
  }

  /** Reads records, those of an image that many sessions sent only once. */
  async #readRecords(rows: ReferringRow[]): Promise<void> {
    const unread = new Map(rows.map((row) => [beginOf(row), row]));
    for (const begin of unread.keys()) if (this.#read.has(begin)) unread.delete(begin);
    for (const begin of unread.keys()) this.#read.set(begin, "whole");
    const lost = await this.#readArchived([...unread].filter(([, { archived }]) => archived));
    const inSegments = [...unread].filter(([, { archived }]) => !archived);
    for await (const { place, body } of this.#reader.read(inSegments.flatMap(placesOf))) {
      if (!(body instanceof Lost)) continue;
      lost.add(place.segmentId);
      if (this.#read.get(place.begin) !== "missing") this.#read.set(place.begin, body.reason);
    }
    await this.#mark(lost);
  }

  /** Returns the archives in which something is lost. */
  async #readArchived(unread: [string, ReferringRow][]): Promise<Set<string>> {
    const lost = new Set<string>();
    const names = await archiveNames(
      this.#sql,
      unread.flatMap(([, { ids }]) => ids),
    );
    for (const [begin, row] of unread) {
      const name = names.get(row.ids[0] ?? "");
      if (name === undefined || (await this.#isReadable(name, row))) continue;
      lost.add(name.id);
      this.#read.set(begin, "damaged");
    }
    return lost;
  }

  async #isReadable(name: ArchiveName, row: ReferringRow): Promise<boolean> {
    const { batches, indexStart } = row;
    const place = { start: row.offsets[0] ?? 0, length: row.lengths[0] ?? 0 };
    if (indexStart === null) return await areReadable(this.#objects, name, place);
    const lost = await lostBatches(this.#objects, name, { ...place, indexStart, batches });
    this.#lostBatches.set(row, lost);
    return lost === 0;
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

/** Counts the rows of tables, all in the order of sessions, by session and state. */
async function* bySession(tables: AsyncGenerator<LostRow>[]): AsyncGenerator<SessionFinding> {
  const heads = await Promise.all(tables.map(async (rows) => await next(rows)));
  for (let first = least(heads); first !== undefined; first = least(heads)) {
    const { sessionId, projectId } = first;
    const counts = new Map<State, { batches: number; images: number }>();
    for (const [nth, rows] of tables.entries())
      for (let row = heads[nth]; row?.sessionId === sessionId; row = heads[nth]) {
        const sum = counts.get(row.state) ?? { batches: 0, images: 0 };
        counts.set(row.state, sum);
        if (row.name === null) sum.batches += row.batches;
        else sum.images++;
        heads[nth] = await next(rows);
      }
    const session = { sessionID: String(sessionId), projectId: projectId || null };
    for (const [state, sum] of counts)
      if (sum.batches + sum.images > 0) yield { what: "session", state, ...session, ...sum };
  }
}

async function next<Row>(rows: AsyncGenerator<Row>): Promise<Row | undefined> {
  const result = await rows.next();
  return result.done === true ? undefined : result.value;
}

function least(rows: (LostRow | undefined)[]): LostRow | undefined {
  return rows.reduce((a, b) =>
    a === undefined || (b !== undefined && (b.sessionId ?? 0n) < (a.sessionId ?? 0n)) ? b : a,
  );
}
