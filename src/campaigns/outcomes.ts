import pRetry from "p-retry";

import { type markInvalidSql } from "../devices/invalid-tokens.ts";
import { type Sql } from "../platform/database/database.ts";
import { isOutage } from "../platform/database/postgres-errors.ts";
import { DEVICE_PLATFORM } from "../platform/device-platforms.ts";
import { WriteBehind } from "../platform/write-behind.ts";
import { DEVICE_EVENT } from "./enums.ts";
import { type Lease } from "./lease.ts";
import { type Semaphore } from "./semaphore.ts";
import { type TargetDevice } from "./targets.ts";

// Short, because sends hold their places until then.
const FLUSH_MS = 30;
const FLUSH_ROWS = 500;
// Longer than a restart or a failover of the database. The next worker repeats only what is not recorded.
const RECORD_MS = 8000;

/** End of the send to one device. */
export type Ended = {
  /** Row as it was sent to; its token may have been replaced since. */
  device: TargetDevice;
  /**
   * Window in which the send holds a place until its outcome is recorded: a crash repeats no more
   * sends than have a place.
   */
  window: Semaphore;
  event: number;
  /** Time in epoch ms since which the provider does not know the token; 0 if it does not say. */
  invalidSince: number;
};

/** `markInvalid` builds the part of the statement that writes to devices, which another slice owns. */
export type OutcomesDeps = { sql: Sql; markInvalid: typeof markInvalidSql };

/**
 * Records outcomes in batches: in the log, in the counters, and on devices whose token is invalid.
 * Records nothing more after a failure.
 */
export class Outcomes {
  readonly #deps: OutcomesDeps;
  readonly #lease: Lease;
  readonly #settled: (ended: Ended[], error?: Error) => void;
  #waiting: Ended[] = [];
  readonly #writer = new WriteBehind(FLUSH_MS, async () => await this.#write());
  #error: Error | undefined;

  /** Calls `settled` once for each outcome: when it is recorded, or with the error that prevents it. */
  constructor(deps: OutcomesDeps, lease: Lease, settled: (ended: Ended[], error?: Error) => void) {
    this.#deps = deps;
    this.#lease = lease;
    this.#settled = settled;
  }

  add(ended: Ended): void {
    this.#waiting.push(ended);
    if (this.#waiting.length >= FLUSH_ROWS) this.#writer.now();
    else this.#writer.soon();
  }

  /** Waits until all outcomes are recorded. Throws the error that prevents it. */
  async flush(): Promise<void> {
    await this.#writer.flush();
    if (this.#error !== undefined) throw this.#error;
  }

  async #write(): Promise<void> {
    const ended = this.#waiting;
    if (ended.length === 0) return;
    this.#waiting = [];
    if (this.#error === undefined)
      try {
        await pRetry(async () => await recordOutcomes(this.#deps, this.#lease, ended), {
          retries: Number.POSITIVE_INFINITY,
          minTimeout: 50,
          maxTimeout: 500,
          maxRetryTime: RECORD_MS,
          shouldRetry: ({ error }) => isOutage(error),
        });
      } catch (error) {
        // The next worker repeats these sends.
        this.#error = new Error("outcomes not recorded", { cause: error });
      }
    this.#settled(ended, this.#error);
  }
}

/**
 * Records outcomes by one statement, which may be repeated: an outcome that is logged is neither
 * logged nor counted again.
 */
async function recordOutcomes(
  { sql, markInvalid }: OutcomesDeps,
  { id, launch }: Lease,
  ended: Ended[],
): Promise<void> {
  const list = (read: (one: Ended) => number) => `{${ended.map(read).join(",")}}`;
  const invalid = ended
    .filter(({ event }) => event === DEVICE_EVENT.invalid_token)
    .map(({ device, invalidSince }) => ({
      deviceId: device.id,
      token: device.token,
      invalidSince,
    }));
  await sql`
    with ended as (
      select * from unnest(${list(({ device }) => device.id)}::text::bigint[], ${list(({ device }) => device.devicePlatform)}::text::smallint[],
        ${list(({ event }) => event)}::text::smallint[]) as ended (device_id, device_platform, event)
    ), logged as (
      insert into device_events (device_id, notification_id, launch, event)
      select device_id, ${id}, ${launch}, event from ended order by device_id
      on conflict (notification_id, launch, device_id, (event > 0)) where launch > 0 do nothing
      returning device_id, event
    ), counts as (
      select count(*) filter (where event = ${DEVICE_EVENT.sent} and device_platform = ${DEVICE_PLATFORM.android}) as android,
        count(*) filter (where event = ${DEVICE_EVENT.sent} and device_platform = ${DEVICE_PLATFORM.ios}) as ios,
        count(*) filter (where event = ${DEVICE_EVENT.sent} and device_platform = ${DEVICE_PLATFORM.web}) as web,
        count(*) filter (where event <> ${DEVICE_EVENT.sent}) as failed
      from logged join ended using (device_id, event)
    ) ${invalid.length > 0 ? sql`, ${markInvalid(sql, invalid)}` : sql``}
    update notifications set sent_android = sent_android + android, sent_ios = sent_ios + ios, sent_web = sent_web + web,
      failed = notifications.failed + counts.failed
    from counts where id = ${id} and launch = ${launch}`;
}
