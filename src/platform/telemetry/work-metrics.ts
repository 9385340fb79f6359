import { Counter } from "prom-client";

import { type ProviderName, perProvider } from "../config/push-config.ts";
import { ProcessMetrics } from "./process-metrics.ts";

type PushCounts = { requests: number; retries: number; unprocessed: number };

/** Metrics of a working process. */
export class WorkMetrics extends ProcessMetrics {
  readonly pushOutcomes = this.counter(
    "push_outcomes_total",
    "Devices of campaigns whose outcome is recorded: sent, failed, invalid_token, or undeliverable (platform none).",
    ["platform", "outcome"],
  );
  readonly campaigns = this.counter(
    "campaigns_total",
    "Runs of campaigns that ended here: sent, refused (no device may be sent to), or left (continued later).",
    ["outcome"],
  );
  readonly orphans = this.counter(
    "orphans_total",
    "Segments found without a row in the index: adopted, deleted, or damaged (left as they are).",
    ["outcome"],
  );
  readonly archiveFailures = this.counter(
    "archive_failures_total",
    "Attempts to archive segments that failed; they are repeated.",
  );
  readonly #archivedSegments = this.counter(
    "archived_segments_total",
    "Segments whose batches were moved into archives.",
  );
  readonly #archiveBytes = this.counter(
    "archive_bytes_total",
    "Bytes of segments that were read to archive them, and of archives that were written.",
    ["direction"],
  );
  readonly #merges = this.counter(
    "archive_merges_total",
    "Merges of archives, and archives rewritten without what was erased, by outcome: merged, rewritten, overtaken (others have changed the archives), damaged (one was marked as unreadable), or failed (repeated).",
    ["outcome"],
  );
  readonly #mergeBytes = this.counter(
    "archive_merge_bytes_total",
    "Bytes of archives that were read to merge them, and that were written.",
    ["direction"],
  );
  readonly #archives = this.counter("archives_total", "Archives that were written.", ["kind"]);

  /** Archives that the last slow pass found without a row. */
  unknownArchives = 0;

  constructor() {
    super("work");
    this.watch(
      "unknown_archives",
      "Archives in the store that the database does not know, as of the last hour: reindex takes them in.",
      () => this.unknownArchives,
      { aggregator: "max" },
    );
    // Create the series with 0: Prometheus sees an increase only in series that existed before.
    for (const outcome of ["sent", "refused", "left"]) this.campaigns.inc({ outcome }, 0);
    for (const outcome of ["adopted", "deleted", "damaged"]) this.orphans.inc({ outcome }, 0);
    for (const direction of ["read", "written"]) this.#archiveBytes.inc({ direction }, 0);
    for (const direction of ["read", "written"]) this.#mergeBytes.inc({ direction }, 0);
    for (const outcome of ["merged", "rewritten", "overtaken", "damaged", "failed"])
      this.#merges.inc({ outcome }, 0);
    for (const kind of ["sessions", "images", "projects"]) this.#archives.inc({ kind }, 0);
  }

  countOrphans(found: Record<string, number>): void {
    for (const [outcome, count] of Object.entries(found)) this.orphans.inc({ outcome }, count);
  }

  /** Counts a step that has archived segments, or has only written archives. */
  countArchived({
    segments,
    readBytes,
    archives,
  }: {
    segments: number;
    readBytes: number;
    archives: { kind: string; bytes: number }[];
  }): void {
    this.#archivedSegments.inc({}, segments);
    this.#archiveBytes.inc({ direction: "read" }, readBytes);
    for (const { kind, bytes } of archives) {
      this.#archives.inc({ kind });
      this.#archiveBytes.inc({ direction: "written" }, bytes);
    }
  }

  /** Counts an attempt to merge archives. */
  countMerge(merge: { outcome: string; bytesRead: number; bytesWritten: number }): void {
    this.#merges.inc({ outcome: merge.outcome });
    this.#mergeBytes.inc({ direction: "read" }, merge.bytesRead);
    this.#mergeBytes.inc({ direction: "written" }, merge.bytesWritten);
  }

  watchArchives(
    archiver: { oldestSeconds: () => Promise<number> },
    garbage: { overdueSeconds: () => Promise<number>; kept: () => Promise<number> },
  ): void {
    this.watch(
      "oldest_unarchived_segment_age_seconds",
      "Age of the oldest readable segment whose batches are not in archives yet; 0 if there is none.",
      async () => await archiver.oldestSeconds(),
      { aggregator: "max" },
    );
    this.watch(
      "archive_garbage_overdue_seconds",
      "Time for which the oldest unreferenced archive has been due for deletion; 0 if there is none.",
      async () => await garbage.overdueSeconds(),
      { aggregator: "max" },
    );
    this.watch(
      "archives_kept",
      "Archives without a row that are kept, because they may be the only copy of something.",
      async () => await garbage.kept(),
      { aggregator: "max" },
    );
  }

  watchPushes(counts: () => Record<ProviderName, PushCounts | undefined>): void {
    const requests = new Counter({
      name: "floodgate_push_requests_total",
      help: "Requests to providers: all, retries of earlier ones, and those that the provider never processed (unprocessed).",
      labelNames: ["platform", "kind"],
      registers: [this.registry],
      collect: (): void => {
        requests.reset();
        for (const [platform, count] of Object.entries(counts())) {
          requests.inc({ platform, kind: "all" }, count?.requests ?? 0);
          requests.inc({ platform, kind: "retries" }, count?.retries ?? 0);
          requests.inc({ platform, kind: "unprocessed" }, count?.unprocessed ?? 0);
        }
      },
    });
  }

  watchCampaigns(worker: {
    running: number;
    window: Record<ProviderName, { used: number; max: number }>;
    overdueSeconds: () => Promise<number>;
  }): void {
    this.watch("campaigns_running", "Campaigns that are being sent.", () => worker.running);
    this.watch(
      "push_window_used",
      "Sends whose outcome is not yet recorded.",
      () => perProvider((name) => worker.window[name].used),
      { label: "platform" },
    );
    this.watch(
      "push_window_max",
      "Maximum of sends whose outcome is not yet recorded.",
      () => perProvider((name) => worker.window[name].max),
      { label: "platform" },
    );
    this.watch(
      "campaign_overdue_seconds",
      "Time for which the oldest campaign has been due without a process that sends it; 0 if there is none.",
      async () => await worker.overdueSeconds(),
      { aggregator: "max" },
    );
  }

  watchGarbage(dueSeconds: () => Promise<number>): void {
    this.watch(
      "build_garbage_overdue_seconds",
      "Time for which the oldest object without a build has been due for deletion; 0 if there is none.",
      dueSeconds,
      { aggregator: "max" },
    );
  }
}
