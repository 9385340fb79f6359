import { isLost, readChecked } from "../log/checked-segment.ts";
import { segmentKey } from "../log/segment.ts";
import { markUnreadable } from "../log/unreadable.ts";
import { type Sql } from "../platform/database/database.ts";
import { repeatSteps } from "../platform/lifecycle.ts";
import { type Log } from "../platform/logger.ts";
import { type ObjectStore } from "../platform/objects/objects.ts";
import { warnRarely } from "../platform/rare-warnings.ts";
import { ReadFacts } from "./read-facts.ts";

const REST_MS = 5000;
const PAGE_SEGMENTS = 100;
// Age from which a segment's facts are no longer expected of the process that committed it.
const DUE_AFTER_S = 10;

export type FactsCatchUpDeps = { sql: Sql; objects: ObjectStore; log: Log };

/**
 * Reads segments whose batches' facts were not written: their process was killed, or was of a
 * previous version.
 */
export class FactsCatchUp {
  readonly #deps: FactsCatchUpDeps;

  constructor(deps: FactsCatchUpDeps) {
    this.#deps = deps;
  }

  /** Catches up repeatedly until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    await repeatSteps(
      REST_MS,
      signal,
      async () => await this.#catchUp(signal),
      (error) =>
        warnRarely(this.#deps.log, { err: error }, "facts about sessions not read from segments"),
    );
  }

  /** Returns whether there may be more. */
  async #catchUp(signal: AbortSignal): Promise<boolean> {
    const due = await this.#due();
    for (const { id, bytes } of due) {
      if (signal.aborted) return false;
      await this.#read(id, bytes);
    }
    return due.length === PAGE_SEGMENTS;
  }

  async #due(): Promise<{ id: string; bytes: number }[]> {
    return await this.#deps.sql<{ id: string; bytes: number }[]>`
      select id, bytes from segments
      where not facts_written and not deleted and created_at < now() - ${DUE_AFTER_S} * interval '1 second'
        and not exists (select from unreadable_segments where segment_id = id)
      -- The newest first: those of a killed process, before all those of a previous version.
      order by id desc limit ${PAGE_SEGMENTS}`;
  }

  async #read(id: string, bytes: number): Promise<void> {
    const { sql, objects, log } = this.#deps;
    const facts = new ReadFacts(sql);
    const key = segmentKey(id);
    try {
      await readChecked(objects, { key, bytes }, facts);
    } catch (error) {
      if (!isLost(error)) throw error;
      log.error({ err: error, key }, "a segment cannot be read");
      await markUnreadable(sql, [id]);
      return;
    }
    await facts.write([id]);
  }
}
