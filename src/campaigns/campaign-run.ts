import { type markInvalidSql } from "../devices/invalid-tokens.ts";
import { unlessAborted } from "../platform/time-limit.ts";
import { type ProviderName } from "../platform/config/push-config.ts";
import { type Sql } from "../platform/database/database.ts";
import { type Log } from "../platform/logger.ts";
import { warnRarely } from "../platform/rare-warnings.ts";
import { type WorkMetrics } from "../platform/telemetry/work-metrics.ts";
import { type CampaignMessage } from "../push/message.ts";
import { DeviceSends, Refused } from "./device-sends.ts";
import { eventName } from "./enums.ts";
import { HeldLease, type Lease, LeaseLost } from "./lease.ts";
import { type Ended, Outcomes } from "./outcomes.ts";
import { type OpenChunk, Progress } from "./progress.ts";
import { type Semaphore } from "./semaphore.ts";
import { SendQueue } from "./send-queue.ts";
import { type Sender } from "./sending.ts";
import {
  type Chunk,
  type Filter,
  type TargetDevice,
  type Walk,
  targets,
  unfinished,
} from "./targets.ts";

const RENEW_MS = 700;

export type CampaignRunDeps<Prepared> = {
  sql: Sql;
  sender: Sender<Prepared>;
  /**
   * Bounds of sends whose outcome is not recorded, shared by all campaigns of the process; "none" is
   * for devices that no provider reaches. A provider that is away thus holds up its own devices only.
   */
  windows: Record<ProviderName | "none", Semaphore>;
  filter: Filter;
  markInvalid: typeof markInvalidSql;
  metrics: WorkMetrics;
  log: Log;
};

/** Sends one launch of a campaign and records it. Another worker continues what is left. */
export class CampaignRun<Prepared> {
  readonly #deps: CampaignRunDeps<Prepared>;
  readonly #lease: Lease;
  readonly #held: HeldLease;
  readonly #walk: Walk;
  readonly #outcomes: Outcomes;
  readonly #stop = new AbortController();
  readonly #sends: DeviceSends<Prepared>;
  readonly #queues: { name: string; queue: SendQueue }[];
  readonly #progress: Progress;

  constructor(deps: CampaignRunDeps<Prepared>, lease: Lease, walk: Walk, message: CampaignMessage) {
    this.#deps = deps;
    this.#lease = lease;
    this.#held = new HeldLease(deps.sql, lease, this.#stop);
    this.#walk = walk;
    this.#outcomes = new Outcomes(deps, lease, (ended, error) => this.#settled(ended, error));
    this.#sends = new DeviceSends(deps.sender, message, this.#stop, (ended) =>
      this.#outcomes.add(ended),
    );
    this.#progress = new Progress(walk.doneCursor);
    const begin = (device: TargetDevice, window: Semaphore) => this.#begin(device, window);
    this.#queues = Object.entries(deps.windows).map(([name, window]) => ({
      name,
      queue: new SendQueue(window, begin),
    }));
  }

  /** Stops sending. Sends under way are finished and recorded, then the lease is given back. */
  stop(): void {
    this.#stop.abort(new LeaseLost("the worker stops"));
  }

  /** Resolves when the campaign has ended, or is left for another worker. */
  async run(): Promise<void> {
    const { metrics, log } = this.#deps;
    const { id } = this.#lease;
    const renewing = setInterval(() => {
      this.#held
        .renew(this.#progress.doneCursor)
        .catch((error: unknown) => warnRarely(log, { err: error }, "lease not renewed"));
    }, RENEW_MS);
    try {
      // A device may wait for its turn long after the run was stopped.
      await unlessAborted(this.#stop.signal, this.#sendAll());
      await this.#held.endCampaign();
      metrics.campaigns.inc({ outcome: "sent" });
      log.info({ campaign: id }, "campaign sent");
    } catch (error) {
      await this.#finish(error);
    } finally {
      clearInterval(renewing);
    }
  }

  /** Records the sends under way after a failure, and its reason. Never throws. */
  async #finish(reason: unknown): Promise<void> {
    const { metrics, log } = this.#deps;
    const { id } = this.#lease;
    this.#stop.abort(reason);
    metrics.campaigns.inc({ outcome: reason instanceof Refused ? "refused" : "left" });
    try {
      await this.#sends.idle();
      await this.#outcomes.flush();
      if (reason instanceof Refused) {
        await this.#held.endCampaign(reason.message);
        log.error({ campaign: id, reason: reason.message }, "campaign ended");
        return;
      }
      // After any other failure the lease runs out first, so that it is not repeated at once.
      if (!(reason instanceof LeaseLost)) log.warn({ err: reason, campaign: id }, "campaign left");
      else {
        log.info({ campaign: id, reason: reason.message }, "campaign left");
        await this.#held.giveBack(this.#progress.doneCursor);
      }
    } catch (error) {
      log.warn({ err: error, campaign: id }, "campaign left as it is");
    }
  }

  async #sendAll(): Promise<void> {
    const { sql, filter } = this.#deps;
    const { externalIds } = this.#walk.recipients;
    let stuck = await this.#walkThrough(targets(sql, this.#lease, this.#walk, filter));
    while (stuck.length > 0) {
      await Promise.race(stuck.map((queue) => queue.drained()));
      const { doneCursor, walked } = this.#progress;
      stuck = await this.#walkThrough(
        unfinished(sql, this.#lease, doneCursor, walked, externalIds),
      );
    }
    for (const { queue } of this.#queues) await queue.drained();
    await this.#sends.idle();
    this.#stop.signal.throwIfAborted();
    await this.#outcomes.flush();
  }

  /** Begins the sends of all chunks. Returns the queues that left devices out. */
  async #walkThrough(chunks: AsyncGenerator<Chunk>): Promise<SendQueue[]> {
    const sending = this.#progress.sending();
    const stuck = new Set<SendQueue>();
    // The next chunk is read while this one is sent.
    for (let next = chunks.next(); ;) {
      const { value: chunk, done } = await next;
      if (done === true) return [...stuck];
      next = chunks.next();
      // The error is thrown where the chunk is awaited.
      next.catch(() => undefined);
      for (const queue of await this.#sendChunk(chunk, sending)) stuck.add(queue);
    }
  }

  /**
   * Returns the queues that did not take their part. It is left for another walk, and the done
   * cursor stays before it.
   */
  async #sendChunk({ until, devices }: Chunk, sending: Set<number>): Promise<SendQueue[]> {
    const open = this.#progress.open(until, devices.length);
    const left = devices.filter(({ id }) => !sending.has(id));
    let parts = this.#queues
      .map(({ name, queue }) => ({
        queue,
        part: left.filter(({ provider = "none" }) => provider === name),
      }))
      .filter(({ part }) => part.length > 0);
    for (;;) {
      const taken = await Promise.all(parts.map(async (one) => await this.#take(one, open)));
      const stuck = parts.filter((_, nth) => taken[nth] === false);
      // Another queue can go on, so the walk does not wait for these.
      if (stuck.length < parts.length || stuck.length === 0) return stuck.map(({ queue }) => queue);
      await Promise.race(stuck.map(({ queue }) => queue.drained()));
      parts = stuck;
    }
  }

  async #take(
    { queue, part }: { queue: SendQueue; part: TargetDevice[] },
    open: OpenChunk | undefined,
  ): Promise<boolean> {
    this.#progress.begin(part, open);
    const isTaken = await queue.take(part);
    if (!isTaken) this.#progress.leave(part);
    return isTaken;
  }

  #begin(device: TargetDevice, window: Semaphore): void {
    this.#held.checkAge();
    if (this.#stop.signal.aborted) {
      window.release();
      this.#stop.signal.throwIfAborted();
    }
    this.#sends.begin(device, window);
  }

  #settled(ended: Ended[], error?: Error): void {
    for (const { window } of ended) window.release();
    if (error !== undefined) {
      this.#stop.abort(error);
      return;
    }
    for (const { device, event } of ended) {
      const platform = device.provider ?? "none";
      this.#deps.metrics.pushOutcomes.inc({ platform, outcome: eventName(event) });
      this.#progress.settle(device.id);
    }
  }
}
