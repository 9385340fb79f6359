import { PROVIDERS, type ProviderName } from "../platform/config/push-config.ts";
import { type Sql } from "../platform/database/database.ts";
import { AppError, codeOf } from "../platform/errors.ts";
import { type OrderBy, orderSql } from "../platform/database/ordering.ts";
import {
  type Properties,
  type PropertyChange,
  applyProperties,
  wireProperties,
} from "./properties.ts";
import { type Recipients, recipientsSql } from "./recipients.ts";
import { type DeviceInput } from "./schema.ts";

export type DeviceSearch = Recipients & {
  start: number;
  size: number;
  orderBys: OrderBy[];
};

type Row = {
  id: number;
  external_id: string;
  push_token: string;
  send_platform: number;
  device_platform: number;
  random_bucket: number;
  properties: Properties;
};

type Total = { total: number };
/** Holds no device if the page is beyond the last one. */
type FoundRow = Total & (Row | { id: null });

type WireDevice = ReturnType<typeof wireDevice>;

/** Stores devices and their properties, and finds them. */
export class Devices {
  readonly #sql: Sql;

  constructor(sql: Sql) {
    this.#sql = sql;
  }

  /** Creates or changes a device; its properties stay. */
  async upsert(device: DeviceInput) {
    const sql = this.#sql;
    // The update comes first, because an upsert consumes an id even if it only updates. A conflict
    // arises with a device that was created meanwhile.
    const [row] = await sql<[Row]>`
      with given (external_id, push_token, send_platform, device_platform) as (
        values (${device.external_id}, ${device.push_token}, ${device.send_platform}::smallint, ${device.device_platform}::smallint)
      ), updated as (
        update devices d set push_token = given.push_token, send_platform = given.send_platform,
          device_platform = given.device_platform, token_set_at = now(), token_invalid = false
        from given where d.external_id = given.external_id
        returning ${columns(sql)}
      ), inserted as (
        insert into devices as d (external_id, push_token, send_platform, device_platform)
        select * from given where not exists (select from updated)
        on conflict (external_id) do update set push_token = excluded.push_token,
          send_platform = excluded.send_platform, device_platform = excluded.device_platform,
          token_set_at = now(), token_invalid = false
        returning ${columns(sql)}
      )
      select * from updated union all select * from inserted`;
    return wireDevice(row);
  }

  /** Returns one device. Throws 404. */
  async get(externalId: string) {
    const sql = this.#sql;
    // PostgreSQL refuses NUL, so no device has one. The router passes null for an id that it cannot
    // decode, which matches no device either.
    const [row] = /\0/.test(externalId)
      ? []
      : await sql<Row[]>`select ${columns(sql)} from devices d where external_id = ${externalId}`;
    if (row === undefined) throw unknown(externalId);
    return wireDevice(row);
  }

  /** Applies all changes or none. Throws 404. */
  async setProperties(externalId: string, changes: PropertyChange[]) {
    const { id } = await this.get(externalId);
    if (changes.length > 0) await applyProperties(this.#sql, id, changes);
    return await this.get(externalId);
  }

  /** Returns one page, and the total of all pages. Throws 503 when it takes too long. */
  async search(search: DeviceSearch): Promise<{ total: number; devices: WireDevice[] }> {
    const { externalIds, conditions } = search;
    const rows = await inTime(
      conditions.type === "all" && externalIds === undefined
        ? this.#pageOfAll(search)
        : this.#pageOfSome(search),
    );
    const devices = rows.filter((row): row is Row & Total => row.id !== null);
    return {
      total: rows[0]?.total ?? 0,
      devices: devices.map(wireDevice),
    };
  }

  async #pageOfAll({ start, size, orderBys }: DeviceSearch): Promise<FoundRow[]> {
    const sql = this.#sql;
    return await sql<FoundRow[]>`
      select total, d.* from (select count(*)::float8 as total from devices) as counted left join lateral (
        select ${columns(sql)} from devices d ${orderSql(sql, orderBys, "d.id")} limit ${size} offset ${start}
      ) as d on true`;
  }

  /** Finds the matching devices first, because for an ordered page the planner might walk all devices. */
  async #pageOfSome(search: DeviceSearch): Promise<FoundRow[]> {
    const { start, size, orderBys } = search;
    const sql = this.#sql;
    return await sql<FoundRow[]>`
      with matched as materialized (
        select d.id from devices d where ${recipientsSql(sql, search, "indexed")}
      )
      select total, d.* from (select count(*)::float8 as total from matched) as counted left join lateral (
        select ${columns(sql)} from matched join devices d on d.id = matched.id
        ${orderSql(sql, orderBys, "d.id")} limit ${size} offset ${start}
      ) as d on true`;
  }

  /**
   * Returns whether a recipient would be sent to through that provider. False also if it takes too
   * long to find out.
   */
  async has(recipients: Recipients, provider: ProviderName): Promise<boolean> {
    const sql = this.#sql;
    const { sendPlatform, devicePlatforms } = PROVIDERS[provider];
    try {
      const [row] = await sql`
        select 1 from devices d
        where send_platform = ${sendPlatform} and device_platform = any(${devicePlatforms}::smallint[])
          and not token_invalid and ${recipientsSql(sql, recipients, "filter")} limit 1`;
      return row !== undefined;
    } catch (error) {
      if (codeOf(error) === QUERY_CANCELED) return false;
      throw error;
    }
  }

  /** Counts the recipients. Throws 503 when it takes too long. */
  async count(recipients: Recipients): Promise<number> {
    const sql = this.#sql;
    const [row] = await inTime(sql<[{ total: number }]>`
      select count(*)::float8 as total from devices d where ${recipientsSql(sql, recipients, "indexed")}`);
    return row.total;
  }
}

/** Turns a timeout of the statement into 503. It is not an outage, and a retry would take as long. */
async function inTime<Rows>(query: Promise<Rows>): Promise<Rows> {
  try {
    return await query;
  } catch (cause) {
    if (codeOf(cause) !== QUERY_CANCELED) throw cause;
    throw new AppError("unavailable", "finding the devices took too long", { cause });
  }
}

const QUERY_CANCELED = "57014";

function columns(sql: Sql) {
  return sql`d.id::float8 as id, d.external_id, d.push_token, d.send_platform, d.device_platform, d.random_bucket, d.properties`;
}

function wireDevice(row: Row) {
  return {
    // Clients expect the length of the document ids of the server before this one.
    _id: row.id.toString(16).padStart(24, "0"),
    id: row.id,
    external_id: row.external_id,
    push_token: row.push_token,
    send_platform: row.send_platform,
    device_platform: row.device_platform,
    random_bucket: row.random_bucket,
    device_properties: wireProperties(row.properties),
  };
}

export function unknown(externalId: string): AppError {
  return new AppError("not_found", `invalid external_id ${externalId}`);
}
