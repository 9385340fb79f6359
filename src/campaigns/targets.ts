import type postgres from "postgres";

import { type Recipients } from "../devices/recipients.ts";
import { type ProviderName, providerOf } from "../platform/config/push-config.ts";
import { type Sql } from "../platform/database/database.ts";
import { DEVICE_EVENT, STATUS } from "./enums.ts";
import { type Lease, LeaseLost } from "./lease.ts";

// Devices per statement of a walk.
const CHUNK_DEVICES = 1000;

export type TargetDevice = {
  id: number;
  token: string;
  /** Undefined for a device that no provider reaches. */
  provider: ProviderName | undefined;
  devicePlatform: number;
  tokenInvalid: boolean;
};

type DeviceRow = Omit<TargetDevice, "provider"> & { sendPlatform: number };

/** Builds a SQL predicate on the device row `d` that selects the recipients. */
export type Filter = (sql: Sql, recipients: Recipients) => Fragment;
type Fragment = postgres.PendingQuery<postgres.Row[]> | postgres.Fragment;

/** Devices in the order of their ids. All targets up to `until` are in this chunk or an earlier one. */
export type Chunk = { until: number; devices: TargetDevice[] };

export type Walk = { deviceCursor: number; doneCursor: number; recipients: Recipients };

/**
 * Yields the devices of a launch that have no outcome yet: first those that were targeted before,
 * then the rest, which it logs as targeted while it moves the device cursor. Throws LeaseLost.
 */
export async function* targets(
  sql: Sql,
  lease: Lease,
  walk: Walk,
  filter: Filter,
): AsyncGenerator<Chunk> {
  const { externalIds } = walk.recipients;
  yield* unfinished(sql, lease, walk.doneCursor, walk.deviceCursor, externalIds);
  const [last] = await sql<[{ id: number }]>`
    select coalesce(max(id), 0)::float8 as id from devices`;
  const matches = filter(sql, walk.recipients);
  for await (const [after, until] of ranges(sql, walk.deviceCursor, last.id, externalIds))
    yield { until, devices: await target(sql, lease, after, until, matches) };
}

/** Yields the devices that were targeted and have no outcome yet, with ids above `first` up to `last`. */
export async function* unfinished(
  sql: Sql,
  lease: Lease,
  first: number,
  last: number,
  externalIds?: string[],
): AsyncGenerator<Chunk> {
  for await (const [after, until] of ranges(sql, first, last, externalIds))
    yield { until, devices: await unfinishedOf(sql, lease, after, until) };
}

/**
 * Yields id ranges of one chunk of devices each, from above `first` up to `last`: ids may have wide
 * gaps. With external ids a chunk counts only those devices.
 */
async function* ranges(
  sql: Sql,
  first: number,
  last: number,
  externalIds?: string[],
): AsyncGenerator<[number, number]> {
  const named =
    externalIds === undefined ? sql`` : sql`and external_id = any(${externalIds}::text[])`;
  for (let after = first; after < last;) {
    const [chunk] = await sql<[{ until: number | null }]>`
      select max(id)::float8 as until from (
        select id from devices where id > ${after} and id <= ${last} ${named} order by id limit ${CHUNK_DEVICES}
      ) chunk`;
    if (chunk.until === null) return;
    yield [after, chunk.until];
    after = chunk.until;
  }
}

async function unfinishedOf(
  sql: Sql,
  { id, launch }: Lease,
  after: number,
  until: number,
): Promise<TargetDevice[]> {
  // Both sides take a range of their index, as a table that has just grown has no statistics for a join.
  const rows = await sql<DeviceRow[]>`
    select ${columns(sql)} from devices d
    where d.id > ${after} and d.id <= ${until} and d.id in (
      select device_id from device_events
      where notification_id = ${id} and launch = ${launch} and launch > 0 and device_id > ${after} and device_id <= ${until}
      group by device_id having max(event) = ${DEVICE_EVENT.targeted}
    )
    order by d.id`;
  return rows.map(toTarget);
}

async function target(
  sql: Sql,
  { id, launch, worker }: Lease,
  after: number,
  until: number,
  matches: Fragment,
): Promise<TargetDevice[]> {
  return await sql.begin(async (transaction) => {
    const rows = await transaction<DeviceRow[]>`
      select ${columns(sql)} from devices d where d.id > ${after} and d.id <= ${until} and ${matches} order by d.id`;
    const ids = `{${rows.map((device) => device.id).join(",")}}`;
    const [held] = await transaction`
      with logged as (
        insert into device_events (device_id, notification_id, launch, event)
        select device_id, ${id}, ${launch}, ${DEVICE_EVENT.targeted} from unnest(${ids}::text::bigint[]) as device_id
        on conflict (notification_id, launch, device_id, (event > 0)) where launch > 0 do nothing
        returning 1
      )
      update notifications set device_cursor = ${until}, targeted = targeted + (select count(*) from logged)
      where id = ${id} and launch = ${launch} and worker = ${worker} and status = ${STATUS.launched} returning 1`;
    if (held === undefined) throw new LeaseLost("the launch is no longer this worker's");
    return rows.map(toTarget);
  });
}

function toTarget({ sendPlatform, ...device }: DeviceRow): TargetDevice {
  const { devicePlatform } = device;
  return { ...device, provider: providerOf({ sendPlatform, devicePlatform }) };
}

function columns(sql: Sql) {
  return sql`d.id::float8 as id, d.push_token as token, d.send_platform as "sendPlatform",
    d.device_platform as "devicePlatform", d.token_invalid as "tokenInvalid"`;
}
