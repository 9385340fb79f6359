import { Type } from "typebox";
import { Value } from "typebox/value";

import { type Sql } from "../../src/platform/database/database.ts";
import { objectOf } from "./answers.ts";
import { KEYED } from "./app.ts";
import { eventually } from "./eventually.ts";

const PRESENCE_FIELDS = {
  userid: Type.String(),
  time: Type.Integer(),
  status: Type.String(),
  online: Type.Boolean(),
  clientid: Type.String(),
};

/** Data of an event, with exactly these fields. */
export const PresenceEvent = Type.Object(PRESENCE_FIELDS, { additionalProperties: false });
export type PresenceEvent = Type.Static<typeof PresenceEvent>;

export const PresenceFrame = Type.Object(
  { type: Type.Literal("presence"), id: Type.String(), ...PRESENCE_FIELDS },
  { additionalProperties: false },
);
export type PresenceFrame = Type.Static<typeof PresenceFrame>;

export const ErrorFrame = Type.Object(
  { type: Type.Literal("error"), code: Type.String(), message: Type.String({ minLength: 1 }) },
  { additionalProperties: false },
);
export type ErrorFrame = Type.Static<typeof ErrorFrame>;

const Minted = Type.Object(
  { token: Type.String(), expires_at: Type.Integer() },
  { additionalProperties: false },
);

/** Server for requests: a test's app, or another one beside it. */
export type Target = { url: string };

/** Checks a value without converting it, unlike `Value.Parse`: a number must not pass as text. */
export function checked<Schema extends Type.TSchema>(
  schema: Schema,
  value: unknown,
): Type.Static<Schema> {
  if (!Value.Check(schema, value)) throw new Error(`unexpected ${JSON.stringify(value)}`);
  return value;
}

let users = 0;

/** Returns a user id that no other test uses. */
export function aUser(name = "user"): string {
  return `${name}-${++users}`;
}

/** Returns the header that a trusted proxy adds, escaped to ASCII. */
export function claim(userid: string, clientid?: string): Record<string, string> {
  const json = JSON.stringify({ userid, clientid });
  const escaped = json.replaceAll(
    /[^ -~]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
  return { "x-user-claim": escaped };
}

export function bearerOf(token: string): Record<string, string> {
  return { authorization: `Bearer ${token}` };
}

export type Ping = { userid: string; clientid?: string; status?: string; token?: string };

/** Sends a ping like the client library; without a status its body is empty. */
export async function pingAnswer(
  { url }: Target,
  { userid, clientid, status, token }: Ping,
): Promise<Response> {
  return await fetch(`${url}/ping`, {
    method: "POST",
    headers: token === undefined ? claim(userid, clientid) : bearerOf(token),
    ...(status !== undefined && { body: JSON.stringify({ status }) }),
  });
}

/** Sends a ping that must be accepted. */
export async function ping(target: Target, given: Ping): Promise<void> {
  const answer = await pingAnswer(target, given);
  const text = await answer.text();
  if (answer.status !== 200 || text !== "") throw new Error(`answered ${answer.status}: ${text}`);
}

/** Sends pings as fast as they are answered, 16 at a time. */
export async function flood(target: Target, pings: Iterable<Ping>): Promise<void> {
  const iterator = pings[Symbol.iterator]();
  const work = async () => {
    for (let next = iterator.next(); next.done !== true; next = iterator.next())
      await ping(target, next.value);
  };
  await Promise.all(Array.from({ length: 16 }, work));
}

/** Returns that many characters of six bytes each in JSON: long events soon fill kernel buffers. */
export function fat(length: number): string {
  return "\u0001".repeat(length);
}

/** Reads the snapshot of some users. */
export async function snapshot(
  { url }: Target,
  userids: string[],
  headers: Record<string, string> = {},
): Promise<Record<string, unknown>> {
  const query = userids.map(encodeURIComponent).join(",");
  return await objectOf(fetch(`${url}/presence?users=${query}`, { headers }));
}

/** Issues a user token, like a backend with the server key. */
export async function mint(
  { url }: Target,
  fields: { userid: string; clientid?: string; ttl_s?: number },
  headers: Record<string, string> = {},
): Promise<Type.Static<typeof Minted>> {
  const answer = fetch(`${url}/presence/tokens`, {
    method: "POST",
    headers: { "content-type": "application/json", ...KEYED, ...headers },
    body: JSON.stringify(fields),
  });
  return checked(Minted, await objectOf(answer));
}

/** Returns the part of a presence that is the same in every event of it. */
export function stateOf({ time, status, online }: PresenceEvent): object {
  return { time, status, online };
}

/** Returns the path that watches some users. */
export function watching(...userids: string[]): string {
  return `/subscribe?users=${userids.map(encodeURIComponent).join(",")}`;
}

/** Resolves when PostgreSQL knows of a device of each user. */
export async function areWritten(sql: Sql, userids: string[]): Promise<void> {
  await eventually("they are written", async () => {
    const rows = await sql`select 1 from presence_devices where user_id = any(${userids})`;
    return rows.length === userids.length;
  });
}
