import { isUtf8 } from "node:buffer";

import { t } from "elysia";

import { AppError } from "../platform/errors.ts";
import { Query } from "../platform/http/parameters.ts";
import { Input } from "../platform/input.ts";
import { decodeJson, jsonOf, recordOf } from "../platform/json.ts";
import { NO_NUL, type Ruled, optional, orNull, readBy, ruled, whole } from "../platform/schema.ts";
import { longerThan } from "../platform/text.ts";

export const USERS_MAX = 200;
const ID_LENGTH_MAX = 128;
const STATUS_LENGTH_MAX = 64;
const CLAIM_LENGTH_MAX = 4096;
const TTL_S_MAX = 30 * 86_400;
const TTL_S_DEFAULT = 3600;

export type ClientFrame =
  | { type: "ping"; status: string | undefined }
  | { type: "subscribe" | "unsubscribe"; userids: string[] }
  | { type: "bye" };

/** Describes text whose lone surrogates are replaced: clients have always been able to send them. */
function looseText(min: number, max: number): Ruled<string> {
  const wrong = `must be text of ${min} to ${max} characters`;
  const shown = { type: "string", minLength: min, maxLength: max, pattern: NO_NUL };
  return ruled(shown, (value) =>
    typeof value === "string" &&
    value.length >= min &&
    !longerThan(value, max) &&
    !value.includes("\0")
      ? undefined
      : wrong,
  );
}

const USERID = looseText(1, ID_LENGTH_MAX);
const STATUS = looseText(0, STATUS_LENGTH_MAX);

const CLAIM = {
  userid: t.Transform(USERID).Decode(wellFormed).Encode(String),
  clientid: optional(looseText(0, ID_LENGTH_MAX), (clientid) => wellFormed(clientid ?? "")),
};

/** Claim of a proxy or a user token. */
export const ClaimFields = new Input(CLAIM, { what: "X-User-Claim" });
export type Claim = ReturnType<typeof ClaimFields.read>;

/** Body of a ping, which may be missing. */
export const Ping = new Input({
  status: t.Optional(
    readBy(
      { anyOf: [STATUS, { type: "number" }], description: "a number counts as its decimal text" },
      parseStatus,
    ),
  ),
});

/** Body of a backend's request for a user token. */
export const TokenRequest = new Input({
  ...CLAIM,
  ttl_s: t
    .Transform(orNull(whole(1, TTL_S_MAX, { default: TTL_S_DEFAULT })))
    .Decode((ttlS) => ttlS ?? TTL_S_DEFAULT)
    .Encode(Number),
});

/** Query of a caller that cannot set headers. */
export const Access = new Query({
  token: t.Optional(t.String({ description: "user token, where `Authorization` cannot be set" })),
});

/** Query of a subscriber that comes back. */
export const Resume = new Query({
  lastEventId: t.Optional(t.String({ description: "where `Last-Event-ID` cannot be set" })),
});

/** Query for several users. */
export const Users = new Query({
  users: readBy(
    {
      type: "array",
      items: USERID,
      minItems: 1,
      maxItems: USERS_MAX,
      description: `up to ${USERS_MAX} user ids, separated by commas`,
    },
    parseUserids,
  ),
});

/** Parses the `X-User-Claim` of a forward-auth proxy. Throws 400. */
export function parseClaim(header: string): Claim {
  if (header.length > CLAIM_LENGTH_MAX)
    throw invalid(`X-User-Claim is over ${CLAIM_LENGTH_MAX} characters`);
  return ClaimFields.read(jsonOf(utf8(header), "X-User-Claim is not JSON"));
}

/** Returns the status in the body of a ping; undefined means unchanged. Throws 400. */
export function parsePing(body: Uint8Array): string | undefined {
  return body.length === 0 ? undefined : Ping.read(parseLoosely(body)).status;
}

/** Parses a backend's request for a user token. Throws 400. */
export function parseTokenRequest(body: Uint8Array) {
  return TokenRequest.read(parseLoosely(body));
}

/** Returns the user ids without duplicates. Throws 400 if there are none or more than `max`. */
export function parseUserids(values: unknown, max = USERS_MAX): string[] {
  if (!Array.isArray(values) || values.length === 0) throw invalid("no users are named");
  const userids = [...new Set(values.map(parseUserid))];
  if (userids.length > max) throw invalid(`at most ${max} users`);
  return userids;
}

function parseUserid(value: unknown): string {
  return checked(value, "userid", USERID);
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
function parseLoosely(body: Uint8Array): unknown {
  return decodeJson(body, { isLenient: true });
}

/** Accepts text, and a number as its decimal text. */
function parseStatus(value: unknown): string | undefined {
  if (value === undefined) return undefined;
  return checked(typeof value === "number" ? decimal(value) : value, "status", STATUS);
}

function decimal(value: number): string {
  if (!Number.isFinite(value)) throw invalid("status must be text or a finite number");
  return value.toLocaleString("en", { useGrouping: false, maximumFractionDigits: 100 });
}

function checked(value: unknown, name: string, { problem }: Ruled<string>): string {
  const wrong = problem(value);
  if (typeof value !== "string" || wrong !== undefined) throw invalid(`${name} ${wrong}`);
  return wellFormed(value);
}

function wellFormed(text: string): string {
  return text.toWellFormed();
}

/** Decodes a header value, in which each character stands for one byte. */
function utf8(header: string): string {
  const bytes = Buffer.from(header, "latin1");
  return isUtf8(bytes) ? new TextDecoder().decode(bytes) : header;
}

function invalid(message: string): AppError {
  return new AppError("invalid", message);
}
