import { Type } from "typebox";
import { Value } from "typebox/value";

import { objectOf } from "./answers.ts";
import { KEYED } from "./app.ts";

const PRESENCE_FIELDS = {
  userid: Type.String(),
  time: Type.Integer(),
  status: Type.String(),
  online: Type.Boolean(),
  clientid: Type.String(),
};

/** The data of an event, these fields and no other. */
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

/** Where requests go: a test's app, or a server beside it. */
export type Target = { url: string };

/** Unlike `Value.Parse` this converts nothing: a number must not pass as text. */
export function checked<Schema extends Type.TSchema>(
  schema: Schema,
  value: unknown,
): Type.Static<Schema> {
  if (!Value.Check(schema, value)) throw new Error(`unexpected ${JSON.stringify(value)}`);
  return value;
}

let users = 0;

/** A user that no other test knows. */
export function aUser(name = "user"): string {
  return `${name}-${++users}`;
}

/** What the proxy in front puts into a request; a header holds no other characters. */
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

/** One ping as the client library sends it; without a status its body is empty. */
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

/** A ping that must be taken. */
export async function ping(target: Target, given: Ping): Promise<void> {
  const answer = await pingAnswer(target, given);
  const text = await answer.text();
  if (answer.status !== 200 || text !== "") throw new Error(`answered ${answer.status}: ${text}`);
}

/** Pings as fast as they are answered, several at a time. The next one begins when one of them is done. */
export async function flood(target: Target, pings: Iterable<Ping>): Promise<void> {
  const iterator = pings[Symbol.iterator]();
  const work = async () => {
    for (let next = iterator.next(); next.done !== true; next = iterator.next())
      await ping(target, next.value);
  };
  await Promise.all(Array.from({ length: 16 }, work));
}

/** As many characters, each of six bytes in JSON: events of about 2 KiB fill the buffers of a kernel in thousands. */
export function fat(length: number): string {
  return "\u0001".repeat(length);
}

/** The snapshot of some users. */
export async function snapshot(
  { url }: Target,
  userids: string[],
  headers: Record<string, string> = {},
): Promise<Record<string, unknown>> {
  const query = userids.map(encodeURIComponent).join(",");
  return await objectOf(fetch(`${url}/presence?users=${query}`, { headers }));
}

/** Mints a token like a server that has the key. */
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

/** A presence without what differs from event to event. */
export function stateOf({ time, status, online }: PresenceEvent): object {
  return { time, status, online };
}

/** The path that watches some users. */
export function watching(...userids: string[]): string {
  return `/subscribe?users=${userids.map(encodeURIComponent).join(",")}`;
}
