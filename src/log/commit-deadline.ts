import pRetry, { AbortError } from "p-retry";

import { rejectOnAbort } from "../platform/abort.ts";
import { type Log } from "../platform/logger.ts";
import { warnRarely } from "../platform/rare-warnings.ts";
import { type Metrics } from "../platform/telemetry/metrics.ts";

/** Thrown if a segment was deleted as an orphan: its records must not be acknowledged. */
export class SegmentDeleted extends Error {
  override readonly name = "SegmentDeleted";
}

/** Aborts the attempts of a commit after `ms`, or at once if no time is left. */
export class CommitDeadline implements Disposable {
  readonly #controller = new AbortController();
  readonly #timer: NodeJS.Timeout;
  readonly signal = this.#controller.signal;

  constructor(ms: number) {
    this.#timer = setTimeout(() => this.expire(), Math.max(0, ms));
    if (ms <= 0) this.expire();
  }

  expire(): void {
    this.#controller.abort(new Error("not stored in time"));
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }

  /** Repeats one step of a commit until it succeeds. Throws SegmentDeleted, or the last failure once the deadline has passed. */
  async retry(
    step: "put" | "index",
    { metrics, log }: { metrics: Metrics; log: Log },
    attempt: () => Promise<void>,
  ): Promise<void> {
    const { signal } = this;
    const seconds = step === "put" ? metrics.putSeconds : metrics.indexSeconds;
    let failure: unknown;
    await pRetry(
      async () => {
        const startedMs = performance.now();
        try {
          await Promise.race([attempt(), rejectOnAbort(signal)]);
        } catch (error) {
          throw error instanceof SegmentDeleted ? new AbortError(error) : error;
        }
        seconds.observe((performance.now() - startedMs) / 1000);
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
      // The deadline alone would not tell what went wrong before it.
      throw signal.aborted ? new Error("not stored in time", { cause: failure ?? error }) : error;
    });
  }
}
