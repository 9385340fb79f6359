import { type BatchNotes } from "../log/checked-segment.ts";
import { type SegmentEntry } from "../log/segment.ts";
import { type Sql } from "../platform/database/database.ts";
import { storedFacts, writeFacts } from "./facts-table.ts";
import { type ToldFacts, factsOf } from "./session-facts.ts";
import { walkStored } from "./stored-batch.ts";

/** Facts about sessions in the batches of segments that are read. */
export class ReadFacts implements BatchNotes {
  readonly #sql: Sql;
  readonly #segments = new Map<string, ToldFacts[]>();

  constructor(sql: Sql) {
    this.#sql = sql;
  }

  note(segmentId: string, { sessionId, flags, facts }: SegmentEntry, body: Uint8Array): void {
    if (facts === undefined) return;
    const frames = walkStored(body, { flags, bytes: facts.bytes });
    const told = { sessionId, hash: facts.hash, facts: factsOf(frames) };
    const known = this.#segments.get(segmentId);
    if (known === undefined) this.#segments.set(segmentId, [told]);
    else known.push(told);
  }

  async write(segmentIds: string[]): Promise<void> {
    const segments = new Map(segmentIds.map((id) => [id, this.#segments.get(id) ?? []]));
    await writeFacts(this.#sql, await storedFacts(this.#sql, segments));
    for (const id of segmentIds) this.#segments.delete(id);
  }
}
