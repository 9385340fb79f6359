import { setTimeout } from "node:timers/promises";

import { type SegmentReader } from "../log/segment-reader.ts";
import { type Sql } from "../platform/database/database.ts";
import { type Log } from "../platform/logger.ts";
import { replacePlace } from "../log/unreadable.ts";
import { imageBytes } from "./reading.ts";

const STEP_IMAGES = 20;
const REST_MS = 60_000;
// Retry time for a row that a process claimed and did not hash: it was too expensive or is damaged.
const AGAIN_S = 3600;
// Time an upload waits for hashing at most; then the image is stored a second time.
const UPLOAD_MS_MAX = 2000;
// Time hashed rows are kept, because processes of the previous version read them.
const KEPT_S = 86_400;

export type UnhashedDeps = { sql: Sql; reader: SegmentReader; log: Log };

type Row = {
  projectId: number;
  name: string;
  bytes: number;
  segments: string[];
  offsets: number[];
  lengths: number[];
};

/** Hashes images of the previous version, whose rows have no hash, and turns them into contents. */
export class Unhashed {
  readonly #deps: UnhashedDeps;
  /** Hashing in progress for uploads, by project and name. */
  readonly #hashing = new Map<string, Promise<void>>();

  constructor(deps: UnhashedDeps) {
    this.#deps = deps;
  }

  /** Hashes all rows repeatedly until the signal; several processes may run it concurrently. */
  async run(signal: AbortSignal): Promise<void> {
    let after = { projectId: -1, name: "" };
    while (!signal.aborted) {
      let rows: Row[] = [];
      try {
        rows = await this.#claim(after);
        await this.#hashAll(rows, signal);
      } catch (error) {
        this.#deps.log.warn({ err: error }, "images were not hashed");
      }
      const last = rows.at(-1);
      after = last ?? { projectId: -1, name: "" };
      if (last === undefined) await this.#rest(signal);
    }
  }

  async #hashAll(rows: Row[], signal: AbortSignal): Promise<void> {
    const left = [...rows];
    for (let row = left[0]; row !== undefined && !signal.aborted; row = left[0]) {
      await this.#tryHash(row);
      left.shift();
    }
    if (left.length > 0) await unclaim(this.#deps.sql, left);
  }

  /**
   * Hashes the images stored under the name, for an upload that may be one of them. Does nothing if
   * they cannot be read.
   */
  async hash(projectId: number, name: string): Promise<void> {
    const key = `${projectId}/${name}`;
    let hashing = this.#hashing.get(key);
    if (hashing === undefined) {
      hashing = this.#hashNamed(projectId, name).finally(() => this.#hashing.delete(key));
      this.#hashing.set(key, hashing);
    }
    await hashing;
  }

  async #rest(signal: AbortSignal): Promise<void> {
    try {
      await this.#deps.sql`
        delete from images where sha256 is not null and looked_at < now() - ${KEPT_S} * interval '1 second'`;
    } catch (error) {
      this.#deps.log.warn({ err: error }, "hashed images were not cleared away");
    }
    await setTimeout(REST_MS, undefined, { signal }).catch(() => undefined);
  }

  /**
   * Claims the next rows so that no other process takes them for a while. Uses no row locks while
   * they are read, so writers are not blocked.
   */
  async #claim(after: { projectId: number; name: string }): Promise<Row[]> {
    const { sql } = this.#deps;
    return await sql<Row[]>`
      with due as (
        select project_id, name from images
        where (project_id, name) > (${after.projectId}, ${after.name}) and sha256 is null
          and (looked_at is null or looked_at < now() - ${AGAIN_S} * interval '1 second')
        order by project_id, name limit ${STEP_IMAGES} for no key update skip locked
      ), claimed as (
        update images set looked_at = now() from due
        where images.project_id = due.project_id and images.name = due.name
        returning images.*
      )
      select ${columns(sql)} from claimed as images order by images.project_id, images.name`;
  }

  async #hashNamed(projectId: number, name: string): Promise<void> {
    const { sql } = this.#deps;
    const [row] = await sql<Row[]>`
      select ${columns(sql)} from images where project_id = ${projectId} and name = ${name} and sha256 is null`;
    if (row !== undefined) await this.#tryHash(row, AbortSignal.timeout(UPLOAD_MS_MAX));
  }

  async #tryHash(row: Row, signal?: AbortSignal): Promise<void> {
    const { sql, reader, log } = this.#deps;
    const hasher = new Bun.CryptoHasher("sha256");
    let bytes = 0;
    const image = { ...row, sha256: null, archive: null };
    try {
      for await (const piece of imageBytes({ sql, reader }, image, {
        start: 0,
        end: row.bytes,
        signal,
      })) {
        hasher.update(piece);
        bytes += piece.length;
      }
      if (bytes !== row.bytes) throw new Error(`the image has ${bytes} bytes of ${row.bytes}`);
    } catch (error) {
      const { projectId, name, segments } = row;
      log.warn({ err: error, projectId, name, segments }, "an image could not be hashed");
      return;
    }
    await insertHashed(sql, row, hasher.digest("hex"));
  }
}

/** Releases the claim so that another process can take the rows at once. */
async function unclaim(sql: Sql, rows: Row[]): Promise<void> {
  const [ids, names] = [rows.map(({ projectId }) => projectId), rows.map(({ name }) => name)];
  await sql`
    update images set looked_at = null from unnest(${ids}::integer[], ${names}::text[]) as row (project, name)
    where images.project_id = row.project and images.name = row.name and sha256 is null`;
}

function columns(sql: Sql) {
  return sql`images.project_id as "projectId", images.name, images.bytes::double precision as bytes,
    images.chunk_segments as segments, images.chunk_offsets as offsets, images.chunk_lengths as lengths`;
}

/**
 * Inserts the row as a content and as a use by its session, unless the row has changed meanwhile.
 * Keeps the row and stores its hash in it. If the session has a project by now, the content gets
 * that project.
 */
async function insertHashed(sql: Sql, row: Row, sha256: string): Promise<void> {
  await sql`
    with hashed as (
      update images set sha256 = decode(${sha256}, 'hex'), looked_at = now()
      where project_id = ${row.projectId} and name = ${row.name} and sha256 is null and chunk_segments = ${row.segments}::uuid[]
      returning *, coalesce(nullif(project_id, 0),
        (select sessions.project_id from sessions where sessions.id = images.session_id), 0) as home
    ), content as (
      insert into image_contents as known (project_id, name, sha256, kind, content_type, bytes, crc32, uses, stored_at,
        chunk_segments, chunk_offsets, chunk_lengths)
      select home, name, sha256, kind, content_type, bytes, crc32, uses, stored_at, chunk_segments, chunk_offsets, chunk_lengths from hashed
      on conflict (project_id, name, sha256) do update
        set uses = known.uses + excluded.uses, stored_at = least(known.stored_at, excluded.stored_at),
          ${replacePlace(sql, "stays")}
      returning 1
    )
    insert into image_uses (session_id, project_id, name, sha256, kind, content_type, sent_at)
    select session_id, home, name, sha256, kind, content_type, stored_at from hashed where (select count(*) from content) = 1
    on conflict (session_id, name, sha256) do nothing`;
}
