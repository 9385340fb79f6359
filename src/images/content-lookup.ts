import { setTimeout } from "node:timers/promises";

import { type Queryable } from "../platform/database/database.ts";
import { anyUnreadable } from "../log/unreadable.ts";
import { type Digest } from "./contents.ts";

const FILES_MAX = 1000;
// Time between two queries at least: a query costs several times what each of its files adds.
const QUERY_EVERY_MS = 8;

/** Result of a lookup by file name. */
export type Found = {
  /** True if the file's own bytes are stored under its name, and not known to be lost. */
  known: boolean;
  /** True if other bytes are stored under its name. */
  others: boolean;
  /** True if bytes without a hash are stored that have the file's length and CRC-32. */
  maybe: boolean;
};

type Question = { project: number; name: string } & Digest;
type Asked = { question: Question; answer: PromiseWithResolvers<Found> };

/**
 * Looks up files by name and content. Files that end during a query or shortly after it share the
 * next query.
 */
export class ContentLookup {
  readonly #sql: Queryable;
  #waiting: Asked[] = [];
  #isRunning = false;

  constructor(sql: Queryable) {
    this.#sql = sql;
  }

  async find(project: number, name: string, file: Digest): Promise<Found> {
    const { bytes, crc32, sha256 } = file;
    const answer = Promise.withResolvers<Found>();
    this.#waiting.push({ question: { project, name, bytes, crc32, sha256 }, answer });
    if (!this.#isRunning) void this.#run();
    return await answer.promise;
  }

  async #run(): Promise<void> {
    this.#isRunning = true;
    while (this.#waiting.length > 0) {
      const asked = this.#waiting.splice(0, FILES_MAX);
      const pause = setTimeout(QUERY_EVERY_MS);
      try {
        const found = await selectFound(
          this.#sql,
          asked.map(({ question }) => question),
        );
        for (const [index, { answer }] of asked.entries())
          answer.resolve(found[index] ?? { known: false, others: false, maybe: false });
      } catch (error) {
        for (const { answer } of asked) answer.reject(error);
      }
      await pause;
    }
    this.#isRunning = false;
  }
}

/** Asks by scalar queries: PostgreSQL would read whole tables to hash them for an `exists`. */
async function selectFound(sql: Queryable, questions: Question[]): Promise<Found[]> {
  return await sql<Found[]>`
    select coalesce((
      select not ${anyUnreadable(sql, sql`chunk_segments || archive_id`)} from image_contents
      where project_id = file.project and name = file.name and sha256 = decode(file.sha256, 'hex')
    ), false) as known, coalesce((
      select true from image_contents
      where project_id = file.project and name = file.name and sha256 <> decode(file.sha256, 'hex') limit 1
    ), (
      select true from images where project_id = file.project and name = file.name and sha256 is null limit 1
    ), false) as others, coalesce((
      select true from images where project_id = file.project and name = file.name and sha256 is null
        and (images.bytes, images.crc32) = (file.bytes, file.crc32) limit 1
    ), false) as maybe
    from rows from (jsonb_to_recordset(${JSON.stringify(questions)}::text::jsonb)
      as (project integer, name text, sha256 text, bytes bigint, crc32 bigint)) with ordinality as file
    order by file.ordinality`;
}
