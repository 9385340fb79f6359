import { AppError } from "../platform/errors.ts";
import { release } from "../platform/gc.ts";
import { type Encoded, readEncoded } from "../platform/bodies/content.ts";
import { type Metrics } from "../platform/telemetry/metrics.ts";
import { type KnownSession, type Sessions } from "../sessions/service.ts";
import { type SessionToken } from "../sessions/token.ts";
import { type CommitLog } from "../log/commit-log.ts";
import { type PendingSegment } from "../log/open-segment.ts";
import { FrameError, type Frames, walkFrames, walkManyFrames } from "./frames.ts";
import { type InflightBytes } from "../log/inflight-bytes.ts";
import { FLAG, type BatchFacts } from "../log/segment.ts";

/**
 * Bytes by which an inflated batch may exceed the size limit, which clients apply before any
 * coding.
 */
const INFLATED_SLACK_BYTES = 64 * 1024;
// Bytes walked in one turn of the event loop at most; the smallest frame has three bytes.
const WALKED_AT_ONCE_BYTES_MAX = 64 * 1024;
const TIME_MAX_MS = Date.UTC(2100, 0);

export type IngestDeps = {
  sessions: Sessions;
  commitLog: CommitLog;
  inflight: InflightBytes;
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

  /** Stores one batch; resolves once it is durable and can be read back. */
  async accept(token: SessionToken, request: Request, late: boolean): Promise<void> {
    const { sessions } = this.#deps;
    const session = await sessions.admit(token.sessionId);
    const segment = await this.#append(token.sessionId, session, request, late);
    if (segment === undefined) return;
    if (!session.stored) await sessions.adopt(token.sessionId);
    await segment.committed;
  }

  /**
   * Appends a batch to the open segment; returns undefined if the session is not recorded. A method
   * of its own, so that nothing keeps the body in memory while its segment is committed.
   */
  async #append(
    sessionId: bigint,
    session: KnownSession,
    request: Request,
    late: boolean,
  ): Promise<PendingSegment | undefined> {
    const { sessions, inflight, commitLog, metrics } = this.#deps;
    const bytesMax = sessions.beaconBytesMax(session.projectId) + INFLATED_SLACK_BYTES;
    using held = inflight.holding(session.projectId);
    const encoded = await readEncoded(request, bytesMax, held.reserve);
    try {
      const frames = await this.#walk(encoded.content);
      if (!session.recorded) {
        metrics.batches.inc({ outcome: "discarded" });
        return undefined;
      }
      metrics.batchBytes.inc(encoded.sent.length);
      const { body, gzip } = storedForm(encoded);
      if (body !== encoded.sent) held.reserve(body.length);
      const flags = gzip | (late ? FLAG.late : 0) | (frames === undefined ? FLAG.quarantined : 0);
      const head = { kind: "batch", flags, projectId: session.projectId, sessionId } as const;
      const memory = await commitLog.memoryFor(body.length);
      return commitLog.append(head, body, factsOf(encoded.content, frames), memory).segment;
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
  #walk(inflated: Uint8Array): Frames | undefined | Promise<Frames | undefined> {
    if (inflated.length === 0) throw new AppError("invalid", "the batch is empty");
    // A promise only for large batches, because it costs as much as the walk of a small one.
    if (inflated.length > WALKED_AT_ONCE_BYTES_MAX)
      return walkManyFrames(inflated).catch((error: unknown) => this.#quarantine(error));
    try {
      return walkFrames(inflated);
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

/**
 * Returns the body as it is stored: as it was sent if every reader of segments can decode it, which
 * is without a content coding or as gzip alone.
 */
function storedForm({ sent, codings, content }: Encoded): { body: Uint8Array; gzip: number } {
  const isGzip = codings.length === 1 && codings[0] === "gzip";
  return isGzip ? { body: sent, gzip: FLAG.gzip } : { body: content, gzip: 0 };
}

function factsOf(inflated: Uint8Array, frames: Frames | undefined): BatchFacts {
  return {
    bytes: inflated.length,
    hash: Bun.hash.xxHash3(inflated),
    messages: frames?.messages ?? 0,
    firstAt: plausible(frames?.firstAt),
    lastAt: plausible(frames?.lastAt),
  };
}

/** Returns null for times after 2100, since a client's clock may have any value. */
function plausible(ms: number | undefined): number | null {
  return ms !== undefined && ms < TIME_MAX_MS ? ms : null;
}
