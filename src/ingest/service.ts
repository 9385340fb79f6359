import { AppError } from "../platform/errors.ts";
import { release } from "../platform/gc.ts";
import { type Metrics } from "../platform/telemetry/metrics.ts";
import { type KnownSession, type Sessions } from "../sessions/service.ts";
import { type SessionToken } from "../sessions/token.ts";
import { type CommitLog } from "../log/commit-log.ts";
import { type PendingSegment } from "../log/open-segment.ts";
import { type FactsBuffer } from "./facts-buffer.ts";
import { FrameError, type Frames } from "./frames.ts";
import { type InflightBytes } from "../log/inflight-bytes.ts";
import { kindFlags } from "../log/batch-kind.ts";
import { FLAG, type BatchFacts, type NewRecord } from "../log/record.ts";
import { type SessionFacts, type FactsOfBatch, factsOf } from "./session-facts.ts";
import { type SentBatch, type WireFormat } from "./wire-format.ts";

/**
 * Bytes by which an inflated batch may exceed the size limit, which clients apply before any
 * coding.
 */
const INFLATED_SLACK_BYTES = 64 * 1024;
// Bytes walked in one turn of the event loop at most; the smallest frame has three bytes.
const WALKED_AT_ONCE_BYTES_MAX = 64 * 1024;

export type IngestDeps = {
  sessions: Sessions;
  commitLog: CommitLog;
  inflight: InflightBytes;
  facts: FactsBuffer;
  metrics: Metrics;
};
export type IngestOptions = { strictFraming: boolean };

export class Ingest {
  readonly #deps: IngestDeps;
  readonly #options: IngestOptions;

  constructor(deps: IngestDeps, options: IngestOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  /** Stores the batches of a request; resolves once they are durable and can be read back. */
  async accept(
    token: SessionToken,
    request: Request,
    format: WireFormat,
    late = false,
  ): Promise<void> {
    const { sessions } = this.#deps;
    const session = await sessions.admit(token.sessionId);
    const segment = await this.#append(token.sessionId, session, request, format, late);
    if (segment === undefined) return;
    if (!session.stored) await sessions.adopt(token.sessionId);
    await segment.committed;
  }

  /**
   * Appends the batches to the open segment; returns undefined if there is none or if the session is
   * not recorded. A method of its own, so that nothing keeps the body in memory while its segment is
   * committed.
   */
  async #append(
    sessionId: bigint,
    session: KnownSession,
    request: Request,
    format: WireFormat,
    late: boolean,
  ): Promise<PendingSegment | undefined> {
    const { sessions, inflight, commitLog, metrics } = this.#deps;
    const { projectId } = session;
    const bytesMax = sessions.beaconBytesMax(projectId) + INFLATED_SLACK_BYTES;
    using held = inflight.holding(projectId);
    const encoded = await format.read(request, bytesMax, held.reserve);
    try {
      const records: NewRecord[] = [];
      const factsOfAll: FactsOfBatch[] = [];
      let bytes = 0;
      for (const batch of format.batches(request, encoded)) {
        const { kind, content, body, gzip } = batch;
        const frames = await this.#walk(format, batch);
        const flags =
          kindFlags(kind) | gzip | (late ? FLAG.late : 0) | (frames ? 0 : FLAG.quarantined);
        const head = { kind: "batch", flags, projectId, sessionId } as const;
        if (session.recorded) {
          const hash = Bun.hash.xxHash3(content);
          const facts = factsOf(frames);
          records.push({ head, body, facts: batchFacts(content, hash, facts) });
          factsOfAll.push({ sessionId, hash, facts });
        } else metrics.batches.inc({ outcome: "discarded" });
        bytes += body.length;
        if (body.buffer !== encoded.sent.buffer) held.reserve(body.length);
      }
      if (records.length === 0) return undefined;
      metrics.batchBytes.inc(encoded.sent.length);
      const memory = await commitLog.memoryFor(bytes, records.length);
      const segment = commitLog.appendAll(records, bytes, memory);
      for (const one of factsOfAll) this.#deps.facts.add(segment, one);
      return segment;
    } finally {
      // They were copied into the segment, or nobody wants them.
      release(encoded.sent);
      release(encoded.content);
    }
  }

  /**
   * Checks the framing. Returns undefined for a malformed batch, to be stored as quarantined: a
   * client that is refused stops recording or sends it for ever. With strict framing throws 400
   * instead.
   */
  #walk(format: WireFormat, batch: SentBatch): Frames | undefined | Promise<Frames | undefined> {
    // A promise only for large batches, because it costs as much as the walk of a small one.
    if (batch.content.length > WALKED_AT_ONCE_BYTES_MAX)
      return format.walkMany(batch).catch((error: unknown) => this.#quarantine(error));
    try {
      return format.walk(batch);
    } catch (error) {
      return this.#quarantine(error);
    }
  }

  #quarantine(error: unknown): undefined {
    if (!(error instanceof FrameError)) throw error;
    this.#deps.metrics.framingErrors.inc({ reason: error.reason });
    if (this.#options.strictFraming)
      throw new AppError("invalid", error.message, { cause: error, reason: "framing" });
  }
}

function batchFacts(content: Uint8Array, hash: bigint, facts: SessionFacts): BatchFacts {
  const { events: messages, firstAt, lastAt } = facts;
  return { bytes: content.length, hash, messages, firstAt, lastAt };
}
