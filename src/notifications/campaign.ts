import { type Sql } from "../platform/database.ts";
import { type Log } from "../platform/log.ts";
import { type Campaign as Message } from "../push/message.ts";
import { type Outcome } from "../push/outcome.ts";
import { DEVICE_EVENT, DEVICE_PLATFORM, SEND_PLATFORM, STATUS } from "./enums.ts";
import { type Ended, type Lease, Outcomes, endLaunch } from "./outcomes.ts";
import { type Sender } from "./sending.ts";
import { type Slots } from "./slots.ts";
import {
  type Chunk,
  type Filter,
  type TargetDevice,
  type Walk,
  LeaseLost,
  targets,
} from "./targets.ts";

const RENEW_MS = 700;
/** A worker that has not renewed its lease for so long is taken to be gone. */
export const LEASE_MS = 3000;

export type CampaignDeps<Prepared> = {
  sql: Sql;
  sender: Sender<Prepared>;
  /** Shared by all campaigns of the process. */
  slots: Slots;
  filter: Filter;
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
  /** In walking order, with how many of their devices are not yet recorded. */
  readonly #open: { until: number; left: number }[] = [];
  readonly #chunkOf = new Map<number, { until: number; left: number }>();
  #doneCursor: number;
  #sending = 0;
  /** Held from before a send until its outcome is recorded: no more than that is sent again after a crash. */
  #slots = 0;
  #idle: (() => void) | undefined;

  constructor(deps: CampaignDeps<Prepared>, lease: Lease, walk: Walk, message: Message) {
    this.#deps = deps;
    this.#lease = lease;
    this.#walk = walk;
    this.#message = message;
    this.#prepared = deps.sender.prepare(message);
    this.#outcomes = new Outcomes(deps.sql, lease, (ended) => this.#recorded(ended));
    this.#doneCursor = walk.doneCursor;
  }

  /** Stops sending; what is under way is finished and recorded, and the lease given back. */
  stop(): void {
    this.#stop.abort(new LeaseLost("the worker stops"));
  }

  /** Resolves when the launch has ended, or is another worker's to go on with. */
  async run(): Promise<void> {
    const { sql, log } = this.#deps;
    const { id } = this.#lease;
    const renewing = setInterval(() => {
      this.#renew().catch((error: unknown) => log.warn({ err: error }, "lease not renewed"));
    }, RENEW_MS);
    try {
      await this.#sendAll();
      await endLaunch(sql, this.#lease);
      log.info({ notification: id, targets: "done" }, "campaign sent");
    } catch (error) {
      await this.#settle();
      if (error instanceof Refused) {
        await endLaunch(sql, this.#lease, error.message);
        log.error({ notification: id, reason: error.message }, "campaign ended");
      } else {
        await this.#giveBack();
        log.warn({ err: error, notification: id }, "campaign left");
      }
    } finally {
      clearInterval(renewing);
      this.#giveSlots(this.#slots);
    }
  }

  async #sendAll(): Promise<void> {
    const { sql, filter } = this.#deps;
    const chunks = targets(sql, this.#lease, this.#walk, filter);
    // The next chunk is read while this one is sent.
    for (let next = chunks.next(); ;) {
      const { value: chunk, done } = await next;
      if (done === true) break;
      next = chunks.next();
      // Handled when it is awaited.
      next.catch(() => undefined);
      await this.#sendChunk(chunk);
    }
    await this.#whenIdle();
    this.#stop.signal.throwIfAborted();
    await this.#outcomes.flush();
  }

  async #sendChunk({ until, devices }: Chunk): Promise<void> {
    const { slots } = this.#deps;
    const open = { until, left: devices.length };
    this.#open.push(open);
    for (const device of devices) this.#chunkOf.set(device.id, open);
    for (const device of devices) {
      this.#stop.signal.throwIfAborted();
      const slot = slots.take();
      if (slot !== undefined) await slot;
      this.#slots++;
      this.#sending++;
      void this.#send(device);
    }
    this.#advance();
  }

  async #send(device: TargetDevice): Promise<void> {
    try {
      this.#end(device, await this.#outcomeOf(device));
    } catch (error) {
      // Without an outcome the device is sent again.
      this.#stop.abort(error);
    } finally {
      this.#sending--;
      if (this.#sending === 0) this.#idle?.();
    }
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

  #end({ id: deviceId, devicePlatform }: TargetDevice, outcome: Outcome | "undeliverable"): void {
    if (outcome !== "undeliverable" && outcome.kind === "refused") {
      this.#stop.abort(new Refused(outcome.reason));
      return;
    }
    const kind = outcome === "undeliverable" ? outcome : outcome.kind;
    const invalidSince =
      outcome !== "undeliverable" && outcome.kind === "invalid_token"
        ? (outcome.timestamp ?? 0)
        : 0;
    this.#outcomes.add({ deviceId, devicePlatform, event: DEVICE_EVENT[kind], invalidSince });
  }

  #recorded(ended: Ended[]): void {
    this.#giveSlots(ended.length);
    for (const { deviceId } of ended) {
      const open = this.#chunkOf.get(deviceId);
      if (open !== undefined) open.left--;
      this.#chunkOf.delete(deviceId);
    }
    this.#advance();
  }

  #giveSlots(count: number): void {
    this.#slots -= count;
    for (let left = count; left > 0; left--) this.#deps.slots.give();
  }

  #advance(): void {
    for (let first = this.#open[0]; first?.left === 0; first = this.#open[0]) {
      this.#doneCursor = first.until;
      this.#open.shift();
    }
  }

  async #whenIdle(): Promise<void> {
    if (this.#sending > 0)
      await new Promise<void>((resolve) => {
        this.#idle = resolve;
      });
  }

  /** Finishes what is under way and records it. */
  async #settle(): Promise<void> {
    await this.#whenIdle();
    await this.#outcomes
      .flush()
      .catch((error: unknown) => this.#deps.log.warn({ err: error }, "outcomes not recorded"));
  }

  async #renew(): Promise<void> {
    const { sql } = this.#deps;
    const { id, worker } = this.#lease;
    const [held] = await sql`
      update notifications set leased_until = now() + ${LEASE_MS} * interval '1 millisecond',
        done_cursor = greatest(done_cursor, ${this.#doneCursor})
      where id = ${id} and worker = ${worker} and status = ${STATUS.launched} returning 1`;
    if (held === undefined) this.#stop.abort(new LeaseLost("cancelled, or another worker has it"));
  }

  async #giveBack(): Promise<void> {
    const { sql, log } = this.#deps;
    const { id, worker } = this.#lease;
    try {
      await sql`
        update notifications set worker = null, leased_until = null, done_cursor = greatest(done_cursor, ${this.#doneCursor})
        where id = ${id} and worker = ${worker}`;
    } catch (error) {
      log.warn({ err: error }, "lease not given back");
    }
  }
}

/** Undefined for a device that nothing can be sent to. */
function platformOf({ sendPlatform, devicePlatform }: TargetDevice): "fcm" | "apns" | undefined {
  if (devicePlatform === DEVICE_PLATFORM.unknown) return undefined;
  if (sendPlatform === SEND_PLATFORM.fcm) return "fcm";
  if (sendPlatform !== SEND_PLATFORM.apns) return undefined;
  // Web push goes through FCM only.
  return devicePlatform === DEVICE_PLATFORM.web ? undefined : "apns";
}

/** A UUID (version 8) that is the same whenever this launch is sent to this device. */
export function messageId(
  { uuid, launch }: Pick<Message, "uuid" | "launch">,
  deviceId: number,
): string {
  const nth = (launch % 0x1000).toString(16).padStart(3, "0");
  return `${uuid.slice(0, 13)}-8${nth}-8${uuid.slice(20, 23)}-${deviceId.toString(16).padStart(12, "0")}`;
}
