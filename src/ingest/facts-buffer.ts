import { LRUCache } from "lru-cache";

import { type PendingSegment } from "../log/open-segment.ts";
import { type Indexed } from "../log/segment-index.ts";
import { type Sql } from "../platform/database/database.ts";
import { type Log } from "../platform/logger.ts";
import { warnRarely } from "../platform/rare-warnings.ts";
import { doneWithin } from "../platform/time-limit.ts";
import { WriteBehind } from "../platform/write-behind.ts";
import { type SegmentFacts, storedFacts, writeFacts } from "./facts-table.ts";
import { type Labels } from "./labels.ts";
import { type FactsOfBatch, type SessionFacts, bySession, sizeOf } from "./session-facts.ts";

// Readers see the facts within three seconds. The longer this is, the fewer rows are written.
const WRITE_MS = 1500;
const KNOWN_MAX = 20_000;
const STOP_MS = 1000;
// Sessions of one transaction at most, unless a single segment has more.
const SESSIONS_MAX = 2000;
// Bytes that wait while the database is away, about. What is dropped is read from its segment later.
const WAITING_BYTES_MAX = 32 * 2 ** 20;

/** Writes what batches say about their sessions about a second after the batches are committed. */
export class FactsBuffer implements AsyncDisposable {
  readonly #sql: Sql;
  readonly #log: Log;
  /** Facts of segments that are not committed yet. */
  readonly #pending = new Map<PendingSegment, FactsOfBatch[]>();
  /** Facts of committed segments, in the order of their commits. */
  #waiting: SegmentFacts[] = [];
  #waitingBytes = 0;
  /** Labels of sessions that are written or wait for it: most batches repeat some. */
  readonly #known = new LRUCache<bigint, Labels>({ max: KNOWN_MAX });
  readonly #writer = new WriteBehind(WRITE_MS, async () => await this.#write());

  constructor(sql: Sql, log: Log) {
    this.#sql = sql;
    this.#log = log;
  }

  /** Writes what is buffered; gives up if the database takes longer than STOP_MS. */
  async [Symbol.asyncDispose](): Promise<void> {
    await doneWithin(STOP_MS, this.#writer[Symbol.asyncDispose]());
  }

  /** Takes the facts of a batch that was appended to the segment. Every batch must be added. */
  add(segment: PendingSegment, batch: FactsOfBatch): void {
    const known = this.#pending.get(segment);
    if (known !== undefined) {
      known.push(batch);
      return;
    }
    const first = [batch];
    this.#pending.set(segment, first);
    segment.committed.then(
      async (indexed) => await this.#committed(segment, first, indexed),
      () => this.#pending.delete(segment),
    );
  }

  async #committed(
    segment: PendingSegment,
    batches: FactsOfBatch[],
    indexed: Indexed,
  ): Promise<void> {
    this.#pending.delete(segment);
    const { id } = segment;
    if (id === undefined || this.#waitingBytes > WAITING_BYTES_MAX) return;
    try {
      // Fewer are stored if some are duplicates, or if the answer of the commit was lost.
      const facts =
        indexed.stored === batches.length
          ? [{ id, sessions: bySession(batches) }]
          : await storedFacts(this.#sql, new Map([[id, batches]]));
      for (const { sessions } of facts)
        for (const [sessionId, one] of sessions) this.#leaveOutKnown(sessionId, one);
      this.#waiting.push(...facts);
      this.#waitingBytes += bytesOf(facts);
      this.#writer.soon();
    } catch (error) {
      warnRarely(this.#log, { err: error }, "facts about sessions are read from segments later");
    }
  }

  #leaveOutKnown(sessionId: bigint, facts: SessionFacts): void {
    const { labels } = facts;
    if (labels === undefined) return;
    const known = this.#known.get(sessionId);
    if (known === undefined) this.#known.set(sessionId, labels.copy());
    else if (known.covers(labels)) facts.labels = undefined;
    else known.merge(labels);
  }

  async #write(): Promise<void> {
    const segments = this.#take();
    if (segments.length === 0) return;
    try {
      await writeFacts(this.#sql, segments);
    } catch (error) {
      warnRarely(this.#log, { err: error }, "facts about sessions not written");
      this.#waiting.unshift(...segments);
      this.#waitingBytes += bytesOf(segments);
      this.#writer.soon();
      return;
    }
    if (this.#waiting.length > 0) this.#writer.now();
  }

  #take(): SegmentFacts[] {
    let count = 0;
    let sessions = 0;
    for (const { sessions: more } of this.#waiting) {
      if (count > 0 && sessions + more.size > SESSIONS_MAX) break;
      count++;
      sessions += more.size;
    }
    const taken = this.#waiting.splice(0, count);
    this.#waitingBytes -= bytesOf(taken);
    return taken;
  }
}

function bytesOf(segments: SegmentFacts[]): number {
  let bytes = 0;
  for (const { sessions } of segments)
    for (const facts of sessions.values()) bytes += sizeOf(facts);
  return bytes;
}
