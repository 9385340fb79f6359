import { type SchemaOptions } from "@sinclair/typebox";
import { t } from "elysia";

import { type Sql } from "../platform/database/database.ts";
import { AppError } from "../platform/errors.ts";
import { ruled, text } from "../platform/schema.ts";
import { parseDecimal } from "../platform/whole-numbers.ts";

// JavaScript formats years outside these bounds in a way that PostgreSQL cannot parse.
const TIME_MIN_MS = Date.parse("0001-01-01");
const TIME_MAX_MS = Date.UTC(10_000, 0);

const TIME = text(1, 64);
const TIMES = [t.String({ format: "date-time" }), t.String({ pattern: "^\\d{1,14}$" })];

/** Describes and reads a time in ISO 8601 or in epoch milliseconds. */
export function time(shown: SchemaOptions) {
  const schema = ruled<string>({ anyOf: TIMES, ...shown }, (value) =>
    Number.isNaN(msOf(String(value)))
      ? (TIME.problem(value) ?? "is neither an ISO 8601 time nor epoch milliseconds")
      : undefined,
  );
  return t
    .Transform(schema)
    .Decode((value) => new Date(msOf(value)))
    .Encode(String);
}

export type SessionFilter = {
  projectId: number;
  /** bounds of the start: `from` is inclusive, `to` exclusive */
  from?: Date;
  to?: Date;
  userUUID?: string;
  userID?: string;
  device?: string;
  cursor?: string;
  limit: number;
};

export type SessionRow = { sessionID: string; startedAt: Date } & Record<string, unknown>;

/** Lists sessions, newest first. `nextCursor` is null on the last page. */
export async function listSessions(sql: Sql, filter: SessionFilter) {
  const after = filter.cursor === undefined ? undefined : parseCursor(filter.cursor);
  const sessions = await sql<SessionRow[]>`
    select ${columns(sql)} from sessions
    where project_id = ${filter.projectId}
      ${after === undefined ? sql`` : sql`and (started_at, id) < (${after.startedAt}, ${after.id})`}
      ${filter.from === undefined ? sql`` : sql`and started_at >= ${filter.from}`}
      ${filter.to === undefined ? sql`` : sql`and started_at < ${filter.to}`}
      ${filter.userUUID === undefined ? sql`` : sql`and user_uuid = ${filter.userUUID}`}
      ${filter.userID === undefined ? sql`` : sql`and user_id = ${filter.userID}`}
      ${filter.device === undefined ? sql`` : sql`and user_device = ${filter.device}`}
    order by started_at desc, id desc limit ${filter.limit + 1}`;
  const page = sessions.slice(0, filter.limit);
  const last = page.at(-1);
  return {
    sessions: page,
    nextCursor: sessions.length > page.length && last !== undefined ? cursorOf(last) : null,
  };
}

/** Throws 404. */
export async function getSession(sql: Sql, id: bigint): Promise<SessionRow> {
  const [session] = await sql<SessionRow[]>`select ${columns(sql)} from sessions where id = ${id}`;
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
    tracker_version as "trackerVersion", rev_id as "revID", user_uuid as "userUUID", user_id as "userID", user_os as "userOS",
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

function msOf(given: string): number {
  const isIso = /^\d{4}-\d\d-\d\d/.test(given);
  const ms = /^\d+$/.test(given) ? Number(given) : isIso ? Date.parse(given) : Number.NaN;
  return ms >= TIME_MIN_MS && ms < TIME_MAX_MS ? ms : Number.NaN;
}
