import { Counter } from "prom-client";

import { ProcessMetrics } from "./process-metrics.ts";

type ByPlatform<T> = { fcm: T; apns: T };
type PushCounts = { requests: number; retries: number; unprocessed: number };

/** What an operator may ask of a working process. */
export class WorkMetrics extends ProcessMetrics {
  readonly pushOutcomes = this.counter(
    "push_outcomes_total",
    "Devices of campaigns whose outcome is recorded: sent, failed, invalid_token, or undeliverable (platform none).",
    ["platform", "outcome"],
  );
  readonly campaigns = this.counter(
    "campaigns_total",
    "Runs of campaigns that came to an end here: sent, refused (nobody may be sent to), or left to go on later.",
    ["outcome"],
  );
  readonly orphans = this.counter(
    "orphans_total",
    "Segments found without a row in the index: adopted, deleted, or damaged (and left as they are).",
    ["outcome"],
  );

  constructor() {
    super("work");
    // An increase can only be seen of what was there before.
    for (const outcome of ["sent", "refused", "left"]) this.campaigns.inc({ outcome }, 0);
    for (const outcome of ["adopted", "deleted", "damaged"]) this.orphans.inc({ outcome }, 0);
  }

  countOrphans(found: Record<string, number>): void {
    for (const [outcome, count] of Object.entries(found)) this.orphans.inc({ outcome }, count);
  }

  watchPushes(counts: () => Partial<ByPlatform<PushCounts | undefined>>): void {
    const requests = new Counter({
      name: "floodgate_push_requests_total",
      help: "Requests to providers: all, those that repeat an earlier one (retries), those that the provider never looked at (unprocessed).",
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
    window: ByPlatform<{ used: number; max: number }>;
    overdueSeconds: () => Promise<number>;
  }): void {
    this.watch("campaigns_running", "Campaigns that are being sent.", () => worker.running);
    this.watch(
      "push_window_used",
      "Sends whose outcome is not yet recorded.",
      () => ({ fcm: worker.window.fcm.used, apns: worker.window.apns.used }),
      { label: "platform" },
    );
    this.watch(
      "push_window_max",
      "Sends that there may be at a time.",
      () => ({ fcm: worker.window.fcm.max, apns: worker.window.apns.max }),
      { label: "platform" },
    );
    this.watch(
      "campaign_overdue_seconds",
      "For how long the oldest campaign has been due that no process has; 0 without one.",
      async () => await worker.overdueSeconds(),
      { aggregator: "max" },
    );
  }

  watchGarbage(dueSeconds: () => Promise<number>): void {
    this.watch(
      "build_garbage_overdue_seconds",
      "For how long the oldest object that no build refers to could have been deleted; 0 without one.",
      dueSeconds,
      { aggregator: "max" },
    );
  }
}
