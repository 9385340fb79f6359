import { AppError } from "../platform/errors.ts";

export const USERS_MAX = 200;
const ID_LENGTH_MAX = 128;
const STATUS_LENGTH_MAX = 64;
const CLAIM_LENGTH_MAX = 4096;
const TTL_S_MAX = 30 * 86_400;
const TTL_S_DEFAULT = 3600;

export type Claim = { userid: string; clientid: string };

export type ClientFrame =
  | { type: "ping"; status: string | undefined }
  | { type: "subscribe" | "unsubscribe"; userids: string[] }
  | { type: "bye" };

/** Parses the `X-User-Claim` of a forward-auth proxy. Throws 400. */
export function parseClaim(header: string): Claim {
  if (header.length > CLAIM_LENGTH_MAX)
    throw invalid(`X-User-Claim is over ${CLAIM_LENGTH_MAX} characters`);
  return claimOf(objectOf(parseJson(utf8(header), "X-User-Claim"), "X-User-Claim"));
}

export function claimOf(fields: Record<string, unknown>): Claim {
  return {
    userid: parseUserid(fields["userid"]),
    clientid: parseText(fields["clientid"] ?? "", "clientid", 0, ID_LENGTH_MAX),
  };
}

/** Returns the status in the body of a ping; undefined means unchanged. Throws 400. */
export function parsePing(body: Uint8Array): string | undefined {
  if (body.length === 0) return undefined;
  const fields = objectOf(parseJson(new TextDecoder().decode(body), "the body"), "the body");
  return parseStatus(fields["status"]);
}

/** Parses a backend's request for a user token. Throws 400. */
export function parseTokenRequest(body: Uint8Array): Claim & { ttlS: number } {
  const fields = objectOf(parseJson(new TextDecoder().decode(body), "the body"), "the body");
  const ttlS = fields["ttl_s"] ?? TTL_S_DEFAULT;
  if (typeof ttlS !== "number" || !Number.isInteger(ttlS) || ttlS < 1 || ttlS > TTL_S_MAX)
    throw invalid(`ttl_s must be a whole number from 1 to ${TTL_S_MAX}`);
  return { ...claimOf(fields), ttlS };
}

/** Returns the user ids without duplicates. Throws 400 if there are none or more than `max`. */
export function parseUserids(values: unknown[], max: number): string[] {
  if (values.length === 0) throw invalid("no users are named");
  const userids = [...new Set(values.map(parseUserid))];
  if (userids.length > max) throw invalid(`at most ${max} users`);
  return userids;
}

export function parseUserid(value: unknown): string {
  return parseText(value, "userid", 1, ID_LENGTH_MAX);
}

/** Parses a decoded frame of a WebSocket client. Throws 400. */
export function parseFrame(value: unknown): ClientFrame {
  const fields = objectOf(value, "the frame");
  const { type, users } = fields;
  switch (type) {
    case "ping":
      return { type, status: parseStatus(fields["status"]) };
    case "subscribe":
    case "unsubscribe":
      if (!Array.isArray(users)) throw invalid("users must be a list");
      return { type, userids: parseUserids(users, Number.POSITIVE_INFINITY) };
    case "bye":
      return { type };
    default:
      throw invalid("unknown frame type");
  }
}

export function parseJson(text: string, what: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw invalid(`${what} is not JSON`, { cause });
  }
}

/** Accepts text, and a number as its decimal text. */
function parseStatus(value: unknown): string | undefined {
  if (value === undefined) return undefined;
  return parseText(
    typeof value === "number" ? decimal(value) : value,
    "status",
    0,
    STATUS_LENGTH_MAX,
  );
}

function decimal(value: number): string {
  if (!Number.isFinite(value)) throw invalid("status must be text or a finite number");
  return value.toLocaleString("en", { useGrouping: false, maximumFractionDigits: 100 });
}

/**
 * Refuses NUL, which PostgreSQL cannot store, and replaces lone surrogates, which UTF-8 cannot
 * encode.
 */
function parseText(value: unknown, name: string, min: number, max: number): string {
  if (typeof value !== "string" || value.length < min || value.length > max || value.includes("\0"))
    throw invalid(`${name} must be text of ${min} to ${max} characters`);
  return value.toWellFormed();
}

function objectOf(value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw invalid(`${what} is not an object`);
  return { ...value };
}

/** Decodes a header value, in which each character stands for one byte. */
function utf8(header: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(Buffer.from(header, "latin1"));
  } catch {
    return header;
  }
}

function invalid(message: string, options: ErrorOptions = {}): AppError {
  return new AppError("invalid", message, options);
}
