import { type Sql } from "../platform/database/database.ts";
import { unavailable } from "../platform/errors.ts";
import { doneWithin } from "../platform/time-limit.ts";
import { WriteBehind } from "../platform/write-behind.ts";
import { type Log } from "../platform/logger.ts";
import { warnRarely } from "../platform/rare-warnings.ts";
import { type Device, type Ping, DEVICES_MAX, deviceOf, mergeInto } from "./device.ts";

const WRITE_MS = 1000;
const STOP_MS = 1000;
const ROWS_MAX = 5000;
// Users buffered at most while the database is down. Pings of others are dropped, so that they are
// recorded only when these users ping again.
const WAITING_MAX = 200_000;
// Concurrent reads at most: callers give up long before a silent database does, and their queries
// would pile up in the driver.
const READS_MAX = 32;
// Age of devices that no client can resume from any more.
const FORGET_AFTER_S = 3600;

type DevicesByUser = Map<string, Device[]>;

/** Stores the devices of all users in PostgreSQL; writes are buffered for about a second. */
export class LastSeen implements AsyncDisposable {
  readonly #sql: Sql;
  readonly #log: Log;
  readonly #ttlMs: number;
  #waiting: DevicesByUser = new Map();
  #writing: DevicesByUser = new Map();
  #reads = 0;
  readonly #writer = new WriteBehind(WRITE_MS, async () => await this.#write());

  constructor(sql: Sql, log: Log, ttlMs: number) {
    this.#sql = sql;
    this.#log = log;
    this.#ttlMs = ttlMs;
  }

  /** Writes buffered devices; gives up if the database takes longer than STOP_MS. */
  async [Symbol.asyncDispose](): Promise<void> {
    await doneWithin(STOP_MS, this.#writer[Symbol.asyncDispose]());
  }

  record(ping: Ping): void {
    const known = this.#waiting.get(ping.userid);
    if (known !== undefined) mergeInto(known, deviceOf(ping), DEVICES_MAX);
    else if (this.#waiting.size + this.#writing.size < WAITING_MAX)
      this.#waiting.set(ping.userid, [deviceOf(ping)]);
    this.#writer.soon();
  }

  /** Yields the user's devices that are not in the database yet. */
  *unwritten(userid: string): Generator<Device> {
    yield* this.#writing.get(userid) ?? [];
    yield* this.#waiting.get(userid) ?? [];
  }

  /** Throws 503 while too many reads are in progress. */
  async load(userids: string[]): Promise<DevicesByUser> {
    if (this.#reads >= READS_MAX)
      throw unavailable("presence cannot be read, try again", 2, { reason: "database" });
    this.#reads++;
    try {
      return await this.#read(userids);
    } finally {
      this.#reads--;
    }
  }

  async #read(userids: string[]): Promise<DevicesByUser> {
    const users: DevicesByUser = new Map();
    for (const { userid, ...device } of await selectDevices(this.#sql, userids)) {
      const devices = users.get(userid);
      if (devices === undefined) users.set(userid, [device]);
      else devices.push(device);
    }
    return users;
  }

  /** Writes the buffered devices; if that fails they are buffered again. */
  async #write(): Promise<void> {
    if (this.#waiting.size === 0) return;
    this.#writing = this.#waiting;
    this.#waiting = new Map();
    try {
      const rows = [...this.#writing].flatMap(([userid, devices]) =>
        devices.map((device) => ({ userid, ...device })),
      );
      for (let at = 0; at < rows.length; at += ROWS_MAX)
        await writeRows(this.#sql, rows.slice(at, at + ROWS_MAX), this.#ttlMs);
    } catch (error) {
      warnRarely(this.#log, { err: error }, "last-seen not written");
      for (const [userid, devices] of this.#writing) {
        const newer = this.#waiting.get(userid);
        if (newer === undefined) this.#waiting.set(userid, devices);
        else for (const device of devices) mergeInto(newer, device, DEVICES_MAX);
      }
      this.#writer.soon();
    }
    this.#writing = new Map();
  }
}

type Row = Device & { userid: string };

async function writeRows(sql: Sql, rows: Row[], ttlMs: number): Promise<void> {
  const written = await sql<{ userid: string; isNew: boolean }[]>`
    insert into presence_devices as known
      (user_id, client_id, changed_at, gone, pinged_at, status, seen_at, seen_status)
    select userid, clientid, to_timestamp("changedAt" / 1000.0), gone,
      to_timestamp(nullif("pingAt", 0) / 1000.0), case when "pingAt" > 0 then status end,
      to_timestamp(nullif("seenAt", 0) / 1000.0), case when "seenAt" > 0 then "seenStatus" end
    from jsonb_to_recordset(${JSON.stringify(rows)}::text::jsonb) as row (userid text, clientid text,
      "changedAt" numeric, gone boolean, "pingAt" numeric, status text, "seenAt" numeric, "seenStatus" text)
    -- Every process writes in this order, so that two cannot deadlock over the same rows.
    order by userid, clientid
    on conflict (user_id, client_id) do update set
      changed_at = greatest(known.changed_at, excluded.changed_at),
      gone = case when excluded.changed_at >= known.changed_at then excluded.gone else known.gone end,
      pinged_at = greatest(known.pinged_at, excluded.pinged_at),
      status = case when excluded.pinged_at >= coalesce(known.pinged_at, '-infinity') then excluded.status else known.status end,
      seen_at = greatest(known.seen_at, excluded.seen_at),
      seen_status = case when excluded.seen_at >= coalesce(known.seen_at, '-infinity') then excluded.seen_status else known.seen_status end
    returning user_id as userid, xmax = 0 as "isNew"`;
  const grown = new Set(written.filter(({ isNew }) => isNew).map(({ userid }) => userid));
  if (grown.size > 0) await forgetDevices(sql, [...grown], ttlMs);
}

/**
 * Deletes old devices of users who got a new one, so that clients that make a new client id for
 * each visit do not fill the table. Keeps the device that changed last and the one that was visible
 * last.
 */
async function forgetDevices(sql: Sql, userids: string[], ttlMs: number): Promise<void> {
  await sql`
    delete from presence_devices old using (
      select user_id, client_id, changed_at,
        row_number() over (partition by user_id order by changed_at desc) as nth,
        row_number() over (partition by user_id order by seen_at desc nulls last) as nth_seen
      from presence_devices where user_id = any(${userids})
    ) ranked
    where old.user_id = ranked.user_id and old.client_id = ranked.client_id and nth > 1 and nth_seen > 1
      and (nth > ${DEVICES_MAX} or ranked.changed_at < now() - ${FORGET_AFTER_S + ttlMs / 1000} * interval '1 second')`;
}

async function selectDevices(sql: Sql, userids: string[]): Promise<Row[]> {
  return await sql<Row[]>`
    select user_id as userid, client_id as clientid, ${ms(sql, "changed_at")} as "changedAt", gone,
      ${ms(sql, "pinged_at")} as "pingAt", coalesce(status, '') as status,
      ${ms(sql, "seen_at")} as "seenAt", coalesce(seen_status, '') as "seenStatus"
    from presence_devices where user_id = any(${userids})`;
}

/** Selects a time in epoch ms, 0 for null. */
function ms(sql: Sql, column: string) {
  return sql`coalesce(extract(epoch from ${sql(column)}) * 1000, 0)::float8`;
}
