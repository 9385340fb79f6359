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
    const { sessions, inflight } = this.#deps;
    const bytesMax = sessions.beaconBytesMax(session.projectId) + INFLATED_SLACK_BYTES;
    return await inflight.holding(session.projectId, async (hold) => {
      const encoded = await readEncoded(request, bytesMax, hold);
      try {
        return await this.#appendBody({ sessionId, session, late }, encoded, hold);
      } finally {
        // They were copied into the segment, or nobody wants them.
        release(encoded.sent);
        release(encoded.content);
      }
    });
  }

  async #appendBody(
    { sessionId, session, late }: { sessionId: bigint; session: KnownSession; late: boolean },
    { sent, codings, content }: Encoded,
    hold: (bytes: number) => void,
  ): Promise<PendingSegment | undefined> {
    const { commitLog, metrics } = this.#deps;
    if (content.length === 0) throw new AppError("invalid", "the batch is empty");
    const frames = await this.#walk(content);
    if (!session.recorded) {
      metrics.batches.inc({ outcome: "discarded" });
      return undefined;
    }
    metrics.batchBytes.inc(sent.length);
    // Stored as sent if every reader of segments can decode it: without a content coding, or as
    // gzip alone.
    const isGzip = codings.length === 1 && codings[0] === "gzip";
    const body = isGzip ? sent : content;
    if (body !== sent) hold(body.length);
    const flags =
      (isGzip ? FLAG.gzip : 0) |
      (late ? FLAG.late : 0) |
      (frames === undefined ? FLAG.quarantined : 0);
    const head = { kind: "batch", flags, projectId: session.projectId, sessionId } as const;
    const facts = factsOf(content, frames);
    const memory = await commitLog.memoryFor(body.length);
    return commitLog.append(head, body, facts, memory).segment;
  }

  /**
   * Checks the framing. Returns undefined for a malformed batch, to be stored as quarantined: a
   * client that is refused stops recording or sends it for ever. With strict framing throws 400
   * instead.
   */
  async #walk(inflated: Uint8Array): Promise<Frames | undefined> {
    try {
      return inflated.length <= WALKED_AT_ONCE_BYTES_MAX
        ? walkFrames(inflated)
        : await walkManyFrames(inflated);
    } catch (error) {
      if (!(error instanceof FrameError)) throw error;
      this.#deps.metrics.framingErrors.inc({ reason: error.reason });
      if (this.#options.strictFraming)
        throw new AppError("invalid", error.message, { cause: error, reason: "framing" });
      return undefined;
    }
  }
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
