import type postgres from "postgres";

import { type Sql } from "../platform/database/database.ts";
import { AppError } from "../platform/errors.ts";
import { parseDecimal } from "../platform/whole-numbers.ts";
import { type SessionFilter } from "./session-query.ts";

export type SessionRow = { sessionID: string; startedAt: Date } & Record<string, unknown>;

/** Lists sessions, newest first. `nextCursor` is null on the last page. */
export async function listSessions(sql: Sql, filter: SessionFilter) {
  const sessions = await sql<SessionRow[]>`
    select ${columns(sql)} from sessions
    where ${conditions(sql, filter).reduce((all, one) => sql`${all} and ${one}`)}
    order by started_at desc, id desc limit ${filter.limit + 1}`;
  const page = sessions.slice(0, filter.limit);
  const last = page.at(-1);
  return {
    sessions: page,
    nextCursor: sessions.length > page.length && last !== undefined ? cursorOf(last) : null,
  };
}

type Condition = postgres.PendingQuery<postgres.Row[]>;

function conditions(sql: Sql, filter: SessionFilter): Condition[] {
  const { from, to, cursor, userID, anonymousID, metadata, page, hasErrors } = filter;
  const labels = (value: object) => sql`labels @> ${JSON.stringify(value)}::text::jsonb`;
  const after = cursor === undefined ? undefined : parseCursor(cursor);
  const given = [
    sql`project_id = ${filter.projectId}`,
    after && sql`(started_at, id) < (${after.startedAt}, ${after.id})`,
    from && sql`started_at >= ${from}`,
    to && sql`started_at < ${to}`,
    // The start has one, and messages may set others.
    userID && sql`(user_id = ${userID} or ${labels({ user: [userID] })})`,
    anonymousID && labels({ anonymous: [anonymousID] }),
    metadata && labels({ metadata }),
    // A fifth of the time that a look at each page takes.
    page && sql`position(${`\n${page}`} in E'\n' || array_to_string(pages, E'\n')) > 0`,
    hasErrors === undefined ? undefined : hasErrors ? sql`errors > 0` : sql`errors = 0`,
    filter.minDurationMs === undefined ? undefined : sql`duration_ms >= ${filter.minDurationMs}`,
    filter.maxDurationMs === undefined ? undefined : sql`duration_ms <= ${filter.maxDurationMs}`,
    filter.userUUID && sql`user_uuid = ${filter.userUUID}`,
    ...EQUAL.map(([name, column]) => filter[name] && sql`${sql(column)} = ${filter[name]}`),
  ];
  return given.filter((one) => typeof one === "object");
}

/** Parameters whose value a column has. */
const EQUAL = [
  ["platform", "platform"],
  ["country", "user_country"],
  ["os", "user_os"],
  ["browser", "user_browser"],
  ["device", "user_device"],
] as const;

/** Throws 404. */
export async function getSession(sql: Sql, id: bigint): Promise<SessionRow> {
  const [session] = await sql<
    SessionRow[]
  >`select ${columns(sql)}, pages from sessions where id = ${id}`;
  if (session === undefined) throw new AppError("not_found", "session not found");
  return session;
}

/**
 * Parses a session id, which is decimal text because a JSON number cannot hold it. Throws 404 for
 * any other text.
 */
export function parseSessionId(given: string): bigint {
  const id = parseDecimal(given);
  if (id === undefined) throw new AppError("not_found", "session not found");
  return id;
}

function columns(sql: Sql) {
  return sql`id::text as "sessionID", project_id as "projectId", recorded, started_at as "startedAt", platform,
    received_at as "lastAt", duration_ms::double precision as "durationMs", events::double precision as events,
    clicks::double precision as clicks, errors::double precision as errors, page_views::double precision as "pageViews", pages[1] as page,
    tracker_version as "trackerVersion", rev_id as "revID", user_uuid as "userUUID",
    coalesce(labels -> 'user' ->> -1, user_id) as "userID", labels -> 'anonymous' ->> -1 as "anonymousID",
    coalesce(labels -> 'metadata', '{}') as metadata, user_os as "userOS",
    user_os_version as "userOSVersion", user_browser as "userBrowser", user_browser_version as "userBrowserVersion",
    user_device as "userDevice", user_device_type as "userDeviceType", user_country as "userCountry",
    user_state as "userState", user_city as "userCity", timezone, device_memory_kib::double precision as "deviceMemory",
    screen_width as "width", screen_height as "height", performance::json as performance`;
}

function cursorOf({ startedAt, sessionID }: SessionRow): string {
  return Buffer.from(`${startedAt.getTime()}.${sessionID}`).toString("base64url");
}

function parseCursor(cursor: string): { startedAt: Date; id: bigint } {
  const [, ms, digits = ""] =
    Buffer.from(cursor, "base64url")
      .toString()
      .match(/^(\d{1,13})\.(\d+)$/) ?? [];
  const id = parseDecimal(digits);
  if (ms === undefined || id === undefined)
    throw new AppError("invalid", "cursor is not one that this route gave out");
  return { startedAt: new Date(Number(ms)), id };
}
