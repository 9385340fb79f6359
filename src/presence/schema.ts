import { isUtf8 } from "node:buffer";

import { AppError } from "../platform/errors.ts";
import { decodeJson, jsonOf, recordOf } from "../platform/json.ts";
import { textOf } from "../platform/text.ts";
import { wholeOf } from "../platform/whole-numbers.ts";

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
  return claimOf(recordOf(jsonOf(utf8(header), "X-User-Claim is not JSON"), "X-User-Claim"));
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
  const fields = bodyOf(body);
  return parseStatus(fields["status"]);
}

/** Parses a backend's request for a user token. Throws 400. */
export function parseTokenRequest(body: Uint8Array): Claim & { ttlS: number } {
  const fields = bodyOf(body);
  const ttlS = wholeOf(fields["ttl_s"] ?? TTL_S_DEFAULT, "ttl_s", 1, TTL_S_MAX);
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
  const fields = recordOf(value, "the frame");
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

/** Parses a JSON body. Bytes that are not UTF-8 are replaced, as lone surrogates are. */
function bodyOf(body: Uint8Array): Record<string, unknown> {
  return recordOf(decodeJson(body, { isLenient: true }), "the body");
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

/** Replaces lone surrogates instead of refusing them: clients have always been able to send them. */
function parseText(value: unknown, name: string, min: number, max: number): string {
  return textOf(typeof value === "string" ? value.toWellFormed() : value, name, min, max);
}

/** Decodes a header value, in which each character stands for one byte. */
function utf8(header: string): string {
  const bytes = Buffer.from(header, "latin1");
  return isUtf8(bytes) ? new TextDecoder().decode(bytes) : header;
}

function invalid(message: string): AppError {
  return new AppError("invalid", message);
}
