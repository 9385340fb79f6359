import { type Sql } from "../platform/database/database.ts";
import { anyUnreadable } from "../log/unreadable.ts";
import { type Digest } from "./contents.ts";

const FILES_MAX = 1000;

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
 * Looks up files by name and content. Files that end while a query is running share the next query.
 */
export class ContentLookup {
  readonly #sql: Sql;
  #waiting: Asked[] = [];
  #isRunning = false;

  constructor(sql: Sql) {
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
    }
    this.#isRunning = false;
  }
}

async function selectFound(sql: Sql, questions: Question[]): Promise<Found[]> {
  return await sql<Found[]>`
    select exists (
      select from image_contents as content
      where project_id = file.project and content.name = file.name and content.sha256 = decode(file.sha256, 'hex')
        and not ${anyUnreadable(sql, sql`content.chunk_segments`)}
    ) as known, exists (
      select from image_contents as content
      where project_id = file.project and content.name = file.name and content.sha256 <> decode(file.sha256, 'hex')
    ) or exists (
      select from images where project_id = file.project and images.name = file.name and images.sha256 is null
    ) as others, exists (
      select from images where project_id = file.project and images.name = file.name and images.sha256 is null
        and (images.bytes, images.crc32) = (file.bytes, file.crc32)
    ) as maybe
    from rows from (jsonb_to_recordset(${JSON.stringify(questions)}::text::jsonb)
      as (project integer, name text, sha256 text, bytes bigint, crc32 bigint)) with ordinality as file
    order by file.ordinality`;
}
