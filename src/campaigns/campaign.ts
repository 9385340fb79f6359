import { rejectOnAbort } from "../platform/abort.ts";
import { type Sql } from "../platform/database/database.ts";
import { type Log } from "../platform/logger.ts";
import { warnRarely } from "../platform/rare-warnings.ts";
import { platformOf } from "../platform/push-platforms.ts";
import { type WorkMetrics } from "../platform/telemetry/work-metrics.ts";
import { type Campaign as Message } from "../push/message.ts";
import { type Outcome } from "../push/outcome.ts";
import { DEVICE_EVENT, SEND_PLATFORM, STATUS, eventName } from "./enums.ts";
import { Lane } from "./lane.ts";
import { type Ended, type Lease, Outcomes, endLaunch } from "./outcomes.ts";
import { messageId } from "./message-id.ts";
import { type OpenChunk, Progress } from "./progress.ts";
import { type Sender } from "./sending.ts";
import { type Slots } from "./slots.ts";
import {
  type Chunk,
  type Filter,
  type TargetDevice,
  type Walk,
  LeaseLost,
  targets,
  unfinished,
} from "./targets.ts";

const RENEW_MS = 700;
/** A worker that has not renewed its lease for so long is taken to be gone. */
export const LEASE_MS = 3000;

export type CampaignDeps<Prepared> = {
  sql: Sql;
  sender: Sender<Prepared>;
  /** Shared by all campaigns of the process; apart, so that a provider that is away keeps only its own devices waiting. */
  slots: { fcm: Slots; apns: Slots };
  filter: Filter;
  metrics: WorkMetrics;
  log: Log;
};

/** Why a campaign stops before its end. */
class Refused extends Error {
  override readonly name = "Refused";
}

/** One launch on its way: walks its targets, sends, records. What it leaves behind, another worker goes on with. */
export class Campaign<Prepared> {
  readonly #deps: CampaignDeps<Prepared>;
  readonly #lease: Lease;
  readonly #walk: Walk;
  readonly #message: Message;
  readonly #prepared: Prepared;
  readonly #outcomes: Outcomes;
  readonly #stop = new AbortController();
  readonly #lanes: { apns: Lane; fcm: Lane };
  readonly #progress: Progress;
  #sending = 0;
  #renewedMs = performance.now();
  #idle: (() => void) | undefined;

  constructor(deps: CampaignDeps<Prepared>, lease: Lease, walk: Walk, message: Message) {
    this.#deps = deps;
    this.#lease = lease;
    this.#walk = walk;
    this.#message = message;
    this.#prepared = deps.sender.prepare(message);
    this.#outcomes = new Outcomes(deps.sql, lease, (ended, error) => this.#settled(ended, error));
    this.#progress = new Progress(walk.doneCursor);
    const { slots } = deps;
    const begin = (device: TargetDevice, held: Slots) => this.#begin(device, held);
    this.#lanes = { apns: new Lane(slots.apns, begin), fcm: new Lane(slots.fcm, begin) };
  }

  /** Stops sending; what is under way is finished and recorded, and the lease given back. */
  stop(): void {
    this.#stop.abort(new LeaseLost("the worker stops"));
  }

  /** Resolves when the launch has ended, or is another worker's to go on with. */
  async run(): Promise<void> {
    const { sql, metrics, log } = this.#deps;
    const { id } = this.#lease;
    const renewing = setInterval(() => {
      this.#renew().catch((error: unknown) => warnRarely(log, { err: error }, "lease not renewed"));
    }, RENEW_MS);
    try {
      // What waits for a slot may wait for long.
      await Promise.race([this.#sendAll(), rejectOnAbort(this.#stop.signal)]);
      await endLaunch(sql, this.#lease);
      metrics.campaigns.inc({ outcome: "sent" });
      log.info({ notification: id }, "campaign sent");
    } catch (error) {
      await this.#finish(error);
    } finally {
      clearInterval(renewing);
    }
  }

  /** Records what was under way when the launch could not go on, and why. Never throws. */
  async #finish(reason: unknown): Promise<void> {
    const { sql, metrics, log } = this.#deps;
    const { id } = this.#lease;
    this.#stop.abort(reason);
    metrics.campaigns.inc({ outcome: reason instanceof Refused ? "refused" : "left" });
    try {
      await this.#whenIdle();
      await this.#outcomes.flush();
      if (reason instanceof Refused) {
        await endLaunch(sql, this.#lease, reason.message);
        log.error({ notification: id, reason: reason.message }, "campaign ended");
        return;
      }
      // Another fault is tried again when the lease has run out, not at once.
      if (!(reason instanceof LeaseLost))
        log.warn({ err: reason, notification: id }, "campaign left");
      else {
        log.info({ notification: id, reason: reason.message }, "campaign left");
        await this.#giveBack();
      }
    } catch (error) {
      log.warn({ err: error, notification: id }, "campaign left as it is");
    }
  }

  async #sendAll(): Promise<void> {
    const { sql, filter } = this.#deps;
    let stuck = await this.#walkThrough(targets(sql, this.#lease, this.#walk, filter));
    while (stuck.length > 0) {
      await Promise.race(stuck.map((lane) => lane.drained()));
      stuck = await this.#walkThrough(
        unfinished(
          sql,
          this.#lease,
          this.#progress.doneCursor,
          this.#progress.walked,
          this.#walk.recipients.externalIds,
        ),
      );
    }
    for (const lane of Object.values(this.#lanes)) await lane.drained();
    await this.#whenIdle();
    this.#stop.signal.throwIfAborted();
    await this.#outcomes.flush();
  }

  /** Has all devices sent to, but for those of the lanes that it returns. */
  async #walkThrough(chunks: AsyncGenerator<Chunk>): Promise<Lane[]> {
    const sending = this.#progress.sending();
    const stuck = new Set<Lane>();
    // The next chunk is read while this one is sent.
    for (let next = chunks.next(); ;) {
      const { value: chunk, done } = await next;
      if (done === true) return [...stuck];
      next = chunks.next();
      // Handled when it is awaited.
      next.catch(() => undefined);
      for (const lane of await this.#sendChunk(chunk, sending)) stuck.add(lane);
    }
  }

  /** The lanes that did not take their part: it is left for another walk, and the done cursor stays before it. */
  async #sendChunk({ until, devices }: Chunk, sending: Set<number>): Promise<Lane[]> {
    const open = this.#progress.open(until, devices.length);
    const { apns, fcm } = this.#lanes;
    const left = devices.filter(({ id }) => !sending.has(id));
    let parts = [
      { lane: apns, part: left.filter(isApns) },
      // What nothing can be sent to goes along with FCM's.
      { lane: fcm, part: left.filter((device) => !isApns(device)) },
    ].filter(({ part }) => part.length > 0);
    for (;;) {
      const taken = await Promise.all(parts.map(async (one) => await this.#take(one, open)));
      const stuck = parts.filter((_, nth) => taken[nth] === false);
      // They are left for the sake of another lane, which can go on.
      if (stuck.length < parts.length || stuck.length === 0) return stuck.map(({ lane }) => lane);
      await Promise.race(stuck.map(({ lane }) => lane.drained()));
      parts = stuck;
    }
  }

  async #take(
    { lane, part }: { lane: Lane; part: TargetDevice[] },
    open: OpenChunk | undefined,
  ): Promise<boolean> {
    this.#progress.begin(part, open);
    const isTaken = await lane.take(part);
    if (!isTaken) this.#progress.leave(part);
    return isTaken;
  }

  #begin(device: TargetDevice, slots: Slots): void {
    if (this.#stop.signal.aborted || this.#isLate()) {
      slots.give();
      this.#stop.signal.throwIfAborted();
    }
    this.#sending++;
    void this.#send(device, slots);
  }

  /** A process that was frozen must not send what another one took over meanwhile. */
  #isLate(): boolean {
    const isLate = performance.now() - this.#renewedMs > LEASE_MS;
    if (isLate) this.#stop.abort(new LeaseLost("the lease was not renewed in time"));
    return isLate;
  }

  async #send(device: TargetDevice, slots: Slots): Promise<void> {
    let ended: Ended | undefined;
    try {
      ended = this.#endOf(device, await this.#outcomeOf(device), slots);
    } catch (error) {
      // Without an outcome the device is sent again.
      this.#stop.abort(error);
    }
    if (ended === undefined) slots.give();
    else this.#outcomes.add(ended);
    this.#sending--;
    if (this.#sending === 0) this.#idle?.();
  }

  async #outcomeOf(device: TargetDevice): Promise<Outcome | "undeliverable"> {
    const { sender } = this.#deps;
    const platform = platformOf(device);
    if (platform === undefined) return "undeliverable";
    if (device.tokenInvalid) return { kind: "invalid_token", reason: "known to be invalid" };
    if (!sender.canSend[platform])
      return { kind: "refused", reason: `no credentials are configured for ${platform}` };
    const apnsId = messageId(this.#message, device.id);
    const { token, devicePlatform } = device;
    const target = { platform, token, devicePlatform, apnsId };
    return await sender.send(target, this.#prepared, this.#stop.signal);
  }

  /** Throws when nobody may be sent to. */
  #endOf(
    { id: deviceId, token, devicePlatform }: TargetDevice,
    outcome: Outcome | "undeliverable",
    slots: Slots,
  ): Ended {
    const ended = { deviceId, token, devicePlatform, slots, invalidSince: 0 };
    if (outcome === "undeliverable") return { ...ended, event: DEVICE_EVENT.undeliverable };
    if (outcome.kind === "refused") throw new Refused(outcome.reason);
    const invalidSince = outcome.kind === "invalid_token" ? (outcome.timestamp ?? 0) : 0;
    return { ...ended, event: DEVICE_EVENT[outcome.kind], invalidSince };
  }

  #settled(ended: Ended[], error?: Error): void {
    for (const { slots } of ended) slots.give();
    if (error !== undefined) {
      this.#stop.abort(error);
      return;
    }
    for (const { deviceId, event, slots } of ended) {
      this.#count(event, slots);
      this.#progress.settle(deviceId);
    }
  }

  #count(event: number, slots: Slots): void {
    const { metrics, slots: all } = this.#deps;
    const platform = slots === all.apns ? "apns" : "fcm";
    metrics.pushOutcomes.inc({
      platform: event === DEVICE_EVENT.undeliverable ? "none" : platform,
      outcome: eventName(event),
    });
  }

  async #whenIdle(): Promise<void> {
    if (this.#sending > 0)
      await new Promise<void>((resolve) => {
        this.#idle = resolve;
      });
  }

  /** Also while it finishes after a cancel: what is under way must be recorded before another worker may begin. */
  async #renew(): Promise<void> {
    const { sql } = this.#deps;
    const { id, launch, worker } = this.#lease;
    const askedMs = performance.now();
    const [held] = await sql<{ status: number }[]>`
      update notifications set leased_until = now() + ${LEASE_MS} * interval '1 millisecond',
        done_cursor = greatest(done_cursor, ${this.#progress.doneCursor})
      where id = ${id} and launch = ${launch} and worker = ${worker} returning status`;
    if (held === undefined) this.#stop.abort(new LeaseLost("another worker has it"));
    else if (held.status !== STATUS.launched) this.#stop.abort(new LeaseLost("cancelled"));
    else this.#renewedMs = askedMs;
  }

  async #giveBack(): Promise<void> {
    const { id, launch, worker } = this.#lease;
    await this.#deps.sql`
      update notifications set worker = null, leased_until = null, done_cursor = greatest(done_cursor, ${this.#progress.doneCursor})
      where id = ${id} and launch = ${launch} and worker = ${worker}`;
  }
}

function isApns({ sendPlatform }: TargetDevice): boolean {
  return sendPlatform === SEND_PLATFORM.apns;
}
