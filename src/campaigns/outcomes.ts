import pRetry from "p-retry";

import { type Sql } from "../platform/database/database.ts";
import { isOutage } from "../platform/database/postgres-errors.ts";
import { DEVICE_EVENT, DEVICE_PLATFORM, STATUS } from "./enums.ts";
import { type Slots } from "./slots.ts";

// Sends wait for their outcomes to be recorded.
const FLUSH_MS = 30;
const FLUSH_ROWS = 500;
// A database that restarts or fails over is back by then; whoever takes the launch over does not send again what is recorded.
const RECORD_MS = 8000;

/** Who sends which launch. Every claim has a `worker` of its own: a process that was frozen may find that it has claimed the launch again. */
export type Lease = { id: number; launch: number; worker: string };

/** How one device ended. */
export type Ended = {
  deviceId: number;
  /** what was sent to: the device may have another one by now */
  token: string;
  /** held from before the send until its outcome is recorded: no more than that is sent again after a crash */
  slots: Slots;
  devicePlatform: number;
  event: number;
  /** epoch ms of when the provider last knew the token; 0 when it does not say */
  invalidSince: number;
};

/** Records outcomes in batches: in the log, in the counters, and on devices whose token is invalid. After a failure it records nothing more. */
export class Outcomes {
  readonly #sql: Sql;
  readonly #lease: Lease;
  readonly #settled: (ended: Ended[], error?: Error) => void;
  #waiting: Ended[] = [];
  #writing: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #error: Error | undefined;

  /** `settled` is told of each once: what is in the database, or with the error what never will be. */
  constructor(sql: Sql, lease: Lease, settled: (ended: Ended[], error?: Error) => void) {
    this.#sql = sql;
    this.#lease = lease;
    this.#settled = settled;
  }

  add(ended: Ended): void {
    this.#waiting.push(ended);
    if (this.#waiting.length >= FLUSH_ROWS) this.#write();
    else this.#timer ??= setTimeout(() => this.#write(), FLUSH_MS);
  }

  /** Resolves when all that was added is recorded. Throws what kept it from that. */
  async flush(): Promise<void> {
    while (this.#waiting.length > 0 || this.#writing !== undefined) {
      this.#write();
      await this.#writing;
    }
    if (this.#error !== undefined) throw this.#error;
  }

  #write(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#writing !== undefined || this.#waiting.length === 0) return;
    const ended = this.#waiting;
    this.#waiting = [];
    this.#writing = this.#record(ended).finally(() => {
      this.#writing = undefined;
      if (this.#waiting.length >= FLUSH_ROWS) this.#write();
      else if (this.#waiting.length > 0) this.#timer ??= setTimeout(() => this.#write(), FLUSH_MS);
    });
  }

  async #record(ended: Ended[]): Promise<void> {
    if (this.#error === undefined)
      try {
        await pRetry(async () => await recordOutcomes(this.#sql, this.#lease, ended), {
          retries: Number.POSITIVE_INFINITY,
          minTimeout: 50,
          maxTimeout: 500,
          maxRetryTime: RECORD_MS,
          shouldRetry: ({ error }) => isOutage(error),
        });
      } catch (error) {
        // Whoever takes the launch over sends these again.
        this.#error = new Error("outcomes not recorded", { cause: error });
      }
    this.#settled(ended, this.#error);
  }
}

/** In one statement, which may be repeated: what is logged is neither logged nor counted again. */
async function recordOutcomes(sql: Sql, { id, launch }: Lease, ended: Ended[]): Promise<void> {
  const list = (read: (one: Ended) => number) => `{${ended.map(read).join(",")}}`;
  const invalid = ended.filter(({ event }) => event === DEVICE_EVENT.invalid_token);
  await sql`
    with ended as (
      select * from unnest(${list((one) => one.deviceId)}::text::bigint[], ${list((one) => one.devicePlatform)}::text::smallint[],
        ${list((one) => one.event)}::text::smallint[]) as ended (device_id, device_platform, event)
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
    ) ${invalid.length > 0 ? marking(sql, invalid) : sql``}
    update notifications set sent_android = sent_android + android, sent_ios = sent_ios + ios, sent_web = sent_web + web,
      failed = notifications.failed + counts.failed
    from counts where id = ${id} and launch = ${launch}`;
}

/** Unless the device has another token by now, or the same was set again after the provider last knew it. */
function marking(sql: Sql, ended: Ended[]) {
  const ids = ended.map(({ deviceId }) => deviceId);
  const tokens = ended.map(({ token }) => token);
  const since = ended.map(({ invalidSince }) => invalidSince);
  return sql`, dead as (
      select devices.id from devices
      join unnest(${ids}::bigint[], ${tokens}::text[], ${since}::float8[]) as ended (id, token, since_ms) using (id)
      where push_token = token and (since_ms = 0 or token_set_at < to_timestamp(since_ms / 1000))
      -- In the order of imports and of other campaigns, so that they cannot deadlock over the same devices.
      order by external_id for update of devices
    ), marked as (
      update devices set token_invalid = true from dead where devices.id = dead.id
    )`;
}

/** Ends the launch: undefined error is success. Nothing happens once another worker has it, or it was cancelled. */
export async function endLaunch(
  sql: Sql,
  { id, launch, worker }: Lease,
  error?: string,
): Promise<void> {
  await sql`
    update notifications set status = ${error === undefined ? STATUS.sent : STATUS.error}, error = ${error ?? null},
      modified_at = now(), worker = null, leased_until = null
    where id = ${id} and launch = ${launch} and worker = ${worker} and status = ${STATUS.launched}`;
}
