import { setImmediate } from "node:timers/promises";

import { type BatchNotes } from "../log/checked-segment.ts";
import { type SegmentEntry } from "../log/record.ts";
import { type Queryable, type Sql } from "../platform/database/database.ts";
import { unnested } from "../platform/database/unnested.ts";
import {
  type DatedFacts,
  addDated,
  addToSessions,
  storedFacts,
  writeFacts,
} from "./facts-table.ts";
import { type FactsOfBatch, factsOf, sizeOf } from "./session-facts.ts";
import { walkStored } from "./stored-batch.ts";

const HELD_BYTES_MAX = 64 * 2 ** 20;
// Time after which others get a turn of the event loop.
const TURN_MS = 10;

/** Facts about sessions in batches that are read, by the segments in which they were stored first. */
export class ReadFacts implements BatchNotes {
  readonly #sql: Sql;
  readonly #segments = new Map<string, FactsOfBatch[]>();
  readonly #archived: DatedFacts = { facts: new Map(), receivedMs: new Map() };
  #heldBytes = 0;
  #turnMs = performance.now();

  constructor(sql: Sql) {
    this.#sql = sql;
  }

  get isFull(): boolean {
    return this.#heldBytes > HELD_BYTES_MAX;
  }

  async note(
    segmentId: string,
    { sessionId, flags, facts }: Pick<SegmentEntry, "sessionId" | "flags" | "facts">,
    body: Uint8Array,
  ): Promise<void> {
    if (facts === undefined) return;
    const frames = await walkStored(body, { flags, bytes: facts.bytes });
    const batch = { sessionId, hash: facts.hash, facts: factsOf(frames) };
    const known = this.#segments.get(segmentId);
    if (known === undefined) this.#segments.set(segmentId, [batch]);
    else known.push(batch);
    this.#heldBytes += sizeOf(batch.facts);
    if (performance.now() - this.#turnMs < TURN_MS) return;
    await setImmediate();
    this.#turnMs = performance.now();
  }

  /** Forgets batches, of some sessions alone, that another segment has whose facts are written. */
  async leaveOutWritten(
    sql: Queryable,
    segmentIds: string[],
    sessions?: ReadonlySet<bigint>,
  ): Promise<void> {
    const batches = segmentIds
      .flatMap((id) => this.#segments.get(id) ?? [])
      .filter(({ sessionId }) => sessions?.has(sessionId) ?? true);
    if (batches.length === 0) return;
    const hashes = batches.map(({ sessionId, hash }) => ({
      session: sessionId,
      digest: BigInt.asIntN(64, hash),
    }));
    const rows = await sql<{ batch: string }[]>`
      select concat_ws(' ', session_id, hash) as batch
      from ${unnested(sql, hashes, { session: "bigint", digest: "bigint" })}
      join batches on (session_id, hash) = (session, digest)
      join segments on segments.id = segment_id where facts_written`;
    if (rows.length === 0) return;
    const written = new Set(rows.map(({ batch }) => batch));
    for (const id of segmentIds)
      this.#keep(
        id,
        ({ sessionId, hash }) => !written.has(`${sessionId} ${BigInt.asIntN(64, hash)}`),
      );
  }

  async write(segmentIds: string[]): Promise<void> {
    const segments = new Map(segmentIds.map((id) => [id, this.#segments.get(id) ?? []]));
    await writeFacts(this.#sql, await storedFacts(this.#sql, segments));
    this.forget(segmentIds);
  }

  /**
   * Adds up the facts of batches of an archive by session, and forgets the batches. Leaves out those
   * that are in the session's row already: `isCounted` says so, or in one of these sessions they have
   * a row whose facts are written.
   */
  async addUp(
    sessionsWithRows: ReadonlySet<bigint>,
    isCounted: (sessionId: bigint, hash: bigint) => boolean,
  ): Promise<void> {
    const segmentIds = [...this.#segments.keys()];
    if (sessionsWithRows.size > 0)
      await this.leaveOutWritten(this.#sql, segmentIds, sessionsWithRows);
    for (const [segmentId, batches] of this.#segments) {
      const added = batches.filter(({ sessionId, hash }) => !isCounted(sessionId, hash));
      const sessions = added.map(({ sessionId, facts }) => [sessionId, facts] as const);
      addDated(this.#archived, segmentId, sessions);
    }
    this.forget(segmentIds);
  }

  /** Writes what was added up, in the transaction that inserts the archive's row. */
  async writeSums(sql: Queryable): Promise<void> {
    await addToSessions(sql, this.#archived);
  }

  forget(segmentIds: string[]): void {
    for (const id of segmentIds) this.#keep(id, () => false);
  }

  #keep(id: string, isKept: (batch: FactsOfBatch) => boolean): void {
    const kept: FactsOfBatch[] = [];
    for (const batch of this.#segments.get(id) ?? [])
      if (isKept(batch)) kept.push(batch);
      else this.#heldBytes -= sizeOf(batch.facts);
    if (kept.length > 0) this.#segments.set(id, kept);
    else this.#segments.delete(id);
  }
}
