import pRetry, { AbortError } from "p-retry";

import { type Log } from "../platform/logger.ts";
import { warnRarely } from "../platform/rare-warnings.ts";
import { TimeLimit, unlessAborted } from "../platform/time-limit.ts";
import { type Metrics } from "../platform/telemetry/metrics.ts";

/** Thrown if a segment was deleted as an orphan: its records must not be acknowledged. */
export class SegmentDeleted extends Error {
  override readonly name = "SegmentDeleted";
}

/** Aborts the attempts of a commit after `ms`, or at once if no time is left. */
export class CommitDeadline extends TimeLimit {
  constructor(ms: number) {
    super(ms, () => new Error("not stored in time"));
  }

  /**
   * Repeats one step of a commit until it succeeds. Throws SegmentDeleted, or the last failure once
   * the deadline has passed.
   */
  async retry<Result>(
    step: "put" | "index",
    { metrics, log }: { metrics: Metrics; log: Log },
    attempt: () => Promise<Result>,
  ): Promise<Result> {
    const { signal } = this;
    const seconds = step === "put" ? metrics.putSeconds : metrics.indexSeconds;
    let failure: unknown;
    return await pRetry(
      async () => {
        const startedMs = performance.now();
        try {
          const result = await unlessAborted(signal, attempt());
          seconds.observe((performance.now() - startedMs) / 1000);
          return result;
        } catch (error) {
          throw error instanceof SegmentDeleted ? new AbortError(error) : error;
        }
      },
      {
        retries: Number.POSITIVE_INFINITY,
        minTimeout: 50,
        maxTimeout: 2000,
        randomize: true,
        signal,
        onFailedAttempt: ({ error }) => {
          failure = error;
          metrics.retries.inc({ step });
          warnRarely(log, { err: error, step }, "commit attempt failed");
        },
      },
    ).catch((error: unknown) => {
      // Name the last failure as the cause: the deadline alone would not explain it.
      throw signal.aborted ? new Error("not stored in time", { cause: failure ?? error }) : error;
    });
  }
}
