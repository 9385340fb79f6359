import { type Recipients } from "../devices/recipients.ts";
import { PROVIDERS, type ProviderName, providerNames } from "../platform/config/push-config.ts";
import { type Sql } from "../platform/database/database.ts";
import { AppError } from "../platform/errors.ts";
import { type OrderBy, orderSql } from "../platform/database/ordering.ts";
import { DEVICE_EVENT, type DeviceEventName, STATUS, type Status, eventName } from "./enums.ts";
import { type CampaignDraft } from "./schema.ts";

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** Dependency on devices, which define the condition language. */
export type Audience = {
  /** Reads recipients as a campaign shows them. Throws 400. */
  parse: (given: { conditions: unknown; external_ids: unknown }) => Recipients;
  /** Returns the recipients in the form that the database stores. */
  store: (recipients: Recipients) => object;
  /** Returns whether a recipient would be sent to through that provider. */
  has: (recipients: Recipients, provider: ProviderName) => Promise<boolean>;
  /** Returns the id of a device. Throws 404. */
  deviceId: (externalId: string) => Promise<number>;
};

export type CampaignsDeps = {
  sql: Sql;
  audience: Audience;
  /** True for providers that have credentials. */
  canSend: Record<ProviderName, boolean>;
};

type Row = {
  id: number;
  uuid: string;
  title: string;
  body: string;
  image_url: string | null;
  icon_url: string | null;
  deep_link: string | null;
  conditions: object;
  /** Ids that narrow the conditions; null or undefined for every device that meets them. */
  external_ids?: string[] | null;
  status: Status;
  scheduled_at: Date;
  created_at: Date;
  modified_at: Date | null;
  error: string | null;
  sent_android: number;
  sent_ios: number;
  sent_web: number;
  targeted: number;
  failed: number;
};

/** Drafts campaigns, launches them and tells their progress. A worker sends them. */
export class Campaigns {
  readonly #deps: CampaignsDeps;

  constructor(deps: CampaignsDeps) {
    this.#deps = deps;
  }

  async create({ conditions, external_ids: externalIds, ...draft }: CampaignDraft) {
    const { sql, audience } = this.#deps;
    const stored = JSON.stringify(audience.store({ conditions, externalIds }));
    const [row] = await sql<[Row]>`
      insert into notifications as n (title, body, image_url, icon_url, deep_link, conditions, scheduled_at)
      values (${draft.title}, ${draft.body}, ${draft.image_url ?? null}, ${draft.icon_url ?? null},
        ${draft.deep_link ?? null}, ${stored}::text::jsonb, ${draft.scheduled_at})
      returning ${columnsOfOne(sql)}`;
    return wireCampaign(row);
  }

  /** Returns one campaign. Throws 404. */
  async get(uuid: string) {
    const { sql } = this.#deps;
    const [row] = UUID.test(uuid)
      ? await sql<Row[]>`select ${columnsOfOne(sql)} from notifications n where uuid = ${uuid}`
      : [];
    if (row === undefined) throw new AppError("not_found", `notification not found ${uuid}`);
    return wireCampaign(row);
  }

  /** Returns one page, and the total of all pages. */
  async list(query: { status?: number; start: number; size: number; orderBys: OrderBy[] }) {
    const { sql } = this.#deps;
    const matching = query.status === undefined ? sql`true` : sql`n.status = ${query.status}`;
    const [count, rows] = await Promise.all([
      sql<
        [{ total: number }]
      >`select count(*)::float8 as total from notifications n where ${matching}`,
      sql<Row[]>`
        select ${columns(sql)} from notifications n where ${matching}
        ${orderSql(sql, query.orderBys, "n.id")} limit ${query.size} offset ${query.start}`,
    ]);
    return { total: count[0].total, campaigns: rows.map(wireCampaign) };
  }

  /**
   * Queues a draft, or a campaign that ended in an error. Leaves any other as it is. Throws 404, and
   * 409 if it was deleted.
   */
  async launch(uuid: string) {
    const { sql, audience } = this.#deps;
    const { status, conditions, external_ids: ids } = await this.get(uuid);
    if (status === STATUS.deleted)
      throw new AppError("conflict", `the notification ${uuid} was deleted`);
    const [armed] = await sql`
      select 1 from notifications where uuid = ${uuid} and ${isLaunchable(sql)}`;
    if (armed === undefined) return await this.get(uuid);
    const problem = await this.#problemWith(audience.parse({ conditions, external_ids: ids }));
    const anew = sql`launch = launch + 1, device_cursor = 0, done_cursor = 0, targeted = 0, failed = 0,
      sent_android = 0, sent_ios = 0, sent_web = 0`;
    // A draft that was sent before starts over; after an error only devices without an outcome are sent to.
    await sql`
      update notifications set modified_at = now(), error = ${problem ?? null},
        status = ${problem === undefined ? STATUS.queued : STATUS.error},
        ${status === STATUS.draft ? anew : sql`launch = greatest(launch, 1)`}
      where uuid = ${uuid} and status = ${status} and ${isLaunchable(sql)}`;
    return await this.get(uuid);
  }

  /** Sets any status. The worker stops sending a campaign that is no longer launched. Throws 404. */
  async setStatus(uuid: string, status: Status) {
    const { sql } = this.#deps;
    await this.get(uuid);
    const over = status === STATUS.error || status === STATUS.deleted ? sql`` : sql`, error = null`;
    await sql`
      update notifications set status = ${status}, modified_at = now() ${over} where uuid = ${uuid}`;
    return await this.get(uuid);
  }

  /**
   * Adds the sends of an external worker, which makes a draft sent. Returns the new counters. Throws
   * 404.
   */
  async increaseSent(uuid: string, { ios, android }: { ios: number; android: number }) {
    const { sql } = this.#deps;
    await this.get(uuid);
    const [row] = await sql<[{ ios: number; android: number }]>`
      update notifications set sent_ios = sent_ios + ${ios}, sent_android = sent_android + ${android},
        modified_at = case when status = ${STATUS.draft} then now() else modified_at end,
        status = case when status = ${STATUS.draft} then ${STATUS.sent} else status end
      where uuid = ${uuid} returning sent_ios::float8 as ios, sent_android::float8 as android`;
    return row;
  }

  /**
   * Logs that an external worker targeted devices, and returns how many; skips unknown device ids.
   * Throws 400 for an unknown campaign.
   */
  async logTargets(notificationId: number, deviceIds: number[]): Promise<number> {
    const { sql } = this.#deps;
    const [known] = await sql`select 1 from notifications where id = ${notificationId}`;
    if (known === undefined)
      throw new AppError("invalid", `notification_id ${notificationId} is unknown`);
    const { count } = await sql`
      insert into device_events (device_id, notification_id, launch, event)
      select d.id, ${notificationId}, 0, ${DEVICE_EVENT.targeted}
      from unnest(${deviceIds}::bigint[]) with ordinality as wanted (id, nth) join devices d on d.id = wanted.id
      order by nth`;
    return count;
  }

  /** Returns the events of a device in campaigns. Throws 404. */
  async eventsOf(
    externalId: string,
    query: { events: DeviceEventName[]; start: number; size: number; orderBys: OrderBy[] },
  ) {
    const { sql, audience } = this.#deps;
    const deviceId = await audience.deviceId(externalId);
    const numbers = query.events.map((name) => DEVICE_EVENT[name]);
    const named = numbers.length === 0 ? sql`` : sql`and e.event = any(${numbers}::smallint[])`;
    type EventRow = Row & { event_id: number; event: number; happened_at: Date };
    const [count, rows] = await Promise.all([
      sql<
        [{ total: number }]
      >`select count(*)::float8 as total from device_events where device_id = ${deviceId}`,
      sql<EventRow[]>`
        select e.id::float8 as event_id, e.event, e.created_at as happened_at, ${columns(sql)}
        from device_events e join notifications n on n.id = e.notification_id
        where e.device_id = ${deviceId} ${named}
        ${orderSql(sql, query.orderBys, "e.id")} limit ${query.size} offset ${query.start}`,
    ]);
    const events = rows.map(({ event_id: id, event, happened_at: at, ...campaign }) => ({
      id,
      notification: wireCampaign(campaign),
      event: eventName(event),
      created_at: at.toISOString(),
    }));
    return { total: count[0].total, events };
  }

  /** Returns which credentials a launch lacks. Undefined if it can reach its whole audience. */
  async #problemWith(recipients: Recipients): Promise<string | undefined> {
    const { audience, canSend } = this.#deps;
    const without = providerNames().filter((name) => !canSend[name]);
    if (without.length === providerNames().length)
      return "no push credentials are configured: the sender is off";
    const missing: string[] = [];
    for (const name of without)
      if (await audience.has(recipients, name)) missing.push(PROVIDERS[name].title);
    return missing.length === 0
      ? undefined
      : `no credentials are configured for ${missing.join(" and ")}`;
  }
}

/**
 * Selects campaigns that a launch may queue. These include those whose status was set to queued or
 * launched without a launch, which no worker takes.
 */
function isLaunchable(sql: Sql) {
  return sql`(status in (${STATUS.draft}, ${STATUS.error})
    or status in (${STATUS.queued}, ${STATUS.launched}) and launch = 0)`;
}

/**
 * Selects the columns of one campaign. Lists omit the external ids: a campaign may have thousands.
 */
function columnsOfOne(sql: Sql) {
  return sql`${columns(sql)}, n.conditions -> 'external_ids' as external_ids`;
}

function columns(sql: Sql) {
  return sql`n.id::float8 as id, n.uuid, n.title, n.body, n.image_url, n.icon_url, n.deep_link, n.status,
    case when n.conditions ? 'external_ids' then n.conditions -> 'conditions' else n.conditions end as conditions,
    n.scheduled_at, n.created_at, n.modified_at, n.error, n.sent_android::float8 as sent_android,
    n.sent_ios::float8 as sent_ios, n.sent_web::float8 as sent_web, n.targeted::float8 as targeted, n.failed::float8 as failed`;
}

function wireCampaign(row: Row) {
  return {
    id: row.id,
    uuid: row.uuid,
    title: row.title,
    body: row.body,
    sent: { android: row.sent_android, ios: row.sent_ios },
    deep_link: row.deep_link,
    image_url: row.image_url,
    icon_url: row.icon_url,
    conditions: row.conditions,
    ...(row.external_ids && { external_ids: row.external_ids }),
    status: row.status,
    scheduled_at: row.scheduled_at.toISOString(),
    created_at: row.created_at.toISOString(),
    modified_at: row.modified_at?.toISOString() ?? null,
    sent_web: row.sent_web,
    targeted: row.targeted,
    failed: row.failed,
    error: row.error,
  };
}
