import { type ArchiveName, archiveKey } from "../../archives/archive-key.ts";
import { archiveDays, selectDay } from "../../archives/recovery/archive-days.ts";
import { CheckedArchive } from "../../archives/recovery/checked-archive.ts";
import { type Sql } from "../../platform/database/database.ts";
import { retryOutages } from "../../platform/database/retry-outages.ts";
import { ObjectDamaged, ObjectMissing, type ObjectStore } from "../../platform/objects/objects.ts";
import { readAhead } from "../../platform/streams.ts";
import { NO_ID } from "../recovery/reindex.ts";
import { isGone } from "../recovery/missing-objects.ts";
import { SegmentError } from "../record.ts";
import { markReadable, markUnreadable } from "../unreadable.ts";
import { type Evidence } from "./evidence.ts";
import { type ArchiveFinding, type State } from "./finding.ts";
import { GoneArchives } from "./gone-objects.ts";

const PAGE_ROWS = 1000;
const GONE = "the object is gone";

type Deps = { sql: Sql; objects: ObjectStore };
type Row = ArchiveName & { bytes: number; unreadable: boolean };
export type ArchivesOptions = {
  /** Looks only whether objects are there. */
  quick: boolean;
  /** Restricts the check to archives that have something of this project. */
  project?: number | undefined;
  onArchives: (archives: number) => void;
};

/** Checks that the archives with rows are there and whole, and marks those that are not. */
export class VerifyArchives {
  readonly #deps: Deps;
  readonly #options: ArchivesOptions;

  constructor(deps: Deps, options: ArchivesOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  /** Yields lost archives. */
  async *run(): AsyncGenerator<ArchiveFinding> {
    const { quick, project } = this.#options;
    if (quick && project === undefined) yield* this.#list();
    else
      yield* readAhead(archiveRows(this.#deps.sql, project), async (row) => {
        this.#options.onArchives(1);
        return await (quick ? this.#ask(row) : this.#read(row));
      });
  }

  async *#list(): AsyncGenerator<ArchiveFinding> {
    for await (const day of archiveDays(this.#deps, () => undefined)) {
      const { found, gone } = await retryOutages(async () => await selectDay(this.#deps.sql, day));
      this.#options.onArchives(found.filter(({ known }) => known).length + gone.length);
      for (const name of gone) {
        const finding = await this.#ask(name);
        if (finding !== undefined) yield finding;
      }
    }
  }

  async #ask(name: ArchiveName): Promise<ArchiveFinding | undefined> {
    const isThere = !(await isGone(this.#deps.objects, archiveKey(name)));
    return isThere ? undefined : await this.#missing(name);
  }

  /** Reads an archive whole; returns undefined if all of it is as it was written. */
  async #read(row: Row): Promise<ArchiveFinding | undefined> {
    const { sql, objects } = this.#deps;
    try {
      const listed = { key: archiveKey(row), bytes: row.bytes };
      const checked = await CheckedArchive.open(objects, listed);
      for await (const part of checked.parts()) void part;
      const problem = await checked.problem();
      if (problem !== undefined) return await this.#lost("damaged", row, problem);
      if (row.unreadable) await retryOutages(async () => await markReadable(sql, row.id));
      return undefined;
    } catch (error) {
      if (error instanceof ObjectMissing) return await this.#missing(row);
      if (!(error instanceof SegmentError || error instanceof ObjectDamaged)) throw error;
      return await this.#lost("damaged", row, error.message);
    }
  }

  /** Returns undefined if others have replaced the archive meanwhile. */
  async #missing(name: ArchiveName): Promise<ArchiveFinding | undefined> {
    const rows = await retryOutages(
      async () => await this.#deps.sql`select 1 from archives where id = ${name.id}`,
    );
    return rows.length === 0 ? undefined : await this.#lost("missing", name, GONE);
  }

  async #lost(state: State, name: ArchiveName, reason: string): Promise<ArchiveFinding> {
    await retryOutages(async () => await markUnreadable(this.#deps.sql, [name.id]));
    return { what: "archive", state, key: archiveKey(name), reason };
  }
}

/**
 * Takes out the rows of archives that are gone, of one project if that is given. They keep their
 * marks, and `reindex` takes an archive in that comes back.
 */
export async function* takeOutArchives(
  deps: Deps,
  { project, evidence }: { project?: number | undefined; evidence: Evidence },
): AsyncGenerator<ArchiveFinding> {
  const { sql } = deps;
  const archives = new GoneArchives(deps);
  for await (const row of archiveRows(sql, project)) {
    const isOurs = project === undefined || row.projectId === project;
    if (!isOurs || !row.unreadable || (await archives.among([row.id])).size === 0) continue;
    await evidence.demand();
    const { count } = await retryOutages(
      async () => await sql`delete from archives where id = ${row.id}`,
    );
    if (count > 0) yield { what: "archive", state: "missing", key: archiveKey(row), reason: GONE };
  }
}

/** Finds an archive that the store lists and that has a row. */
export async function findKnownArchive(deps: Deps): Promise<string | undefined> {
  for await (const day of archiveDays(deps, () => undefined)) {
    const { found } = await retryOutages(async () => await selectDay(deps.sql, day));
    const known = found.find((one) => one.known);
    if (known !== undefined) return known.key;
  }
  return undefined;
}

/** Yields archives with rows, or those of them that have something of a project. */
async function* archiveRows(sql: Sql, project: number | undefined): AsyncGenerator<Row> {
  // Sessions and images without a known project may have got one since.
  const isOfProject =
    project === undefined
      ? sql`true`
      : sql`(project_id = ${project} or project_id = 0 and (
          exists (
            select from session_pieces join sessions on sessions.id = session_id
            where archive_id = archives.id and sessions.project_id = ${project}
          ) or exists (select from image_contents where archive_id = archives.id and image_contents.project_id = ${project})
        ))`;
  for (let after: string | undefined = NO_ID; after !== undefined;) {
    const from: string = after;
    const rows: Row[] = await retryOutages(
      async () =>
        await sql<Row[]>`
          select archives.id, project_id as "projectId", day::text, bytes::float8, segment_id is not null as unreadable
          from archives left join unreadable_segments on segment_id = archives.id
          where archives.id > ${from} and ${isOfProject} order by archives.id limit ${PAGE_ROWS}`,
    );
    yield* rows;
    after = rows.length < PAGE_ROWS ? undefined : rows.at(-1)?.id;
  }
}
