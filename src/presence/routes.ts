import { Elysia } from "elysia";

import { type Clients } from "../platform/http/clients.ts";
import { type Clock } from "../platform/clock.ts";
import { readContent } from "../platform/bodies/content.ts";
import { errors, json, jsonBody, queryParameters } from "../platform/http/docs.ts";
import { AppError, renderError } from "../platform/errors.ts";
import { mount } from "../platform/http/policy.ts";
import { type Callers } from "./caller.ts";
import { EventStream } from "./watch/event-stream.ts";
import { type Hub } from "./watch/hub.ts";
import {
  Access,
  Ping,
  Resume,
  TokenRequest,
  Users,
  parsePing,
  parseTokenRequest,
  parseUserids,
} from "./schema.ts";
import { type Presence } from "./service.ts";
import { type Seat, type Seats } from "./watch/seats.ts";
import { Socket } from "./watch/socket.ts";
import { type Topic } from "./watch/topic.ts";
import { type UserTokens } from "./user-tokens.ts";

const BODY_BYTES_MAX = 4096;
const MSGPACK_PROTOCOL = "floodgate.msgpack";

export type PresenceRoutesDeps = {
  presence: Presence;
  hub: Hub;
  seats: Seats;
  callers: Callers;
  clients: Clients;
};

export type TokenRoutesDeps = { tokens: UserTokens; clock: Clock };

export function presenceRoutes(deps: PresenceRoutesDeps) {
  const { presence, callers, clients } = deps;
  return new Elysia({
    name: "presence",
    ...mount({
      audience: "app",
      tag: "Presence",
      credential: "user",
      errors: renderError,
      headers: ["authorization", "last-event-id"],
    }),
  })
    .post(
      "/ping",
      async ({ request }) => {
        const user = await callers.user(request);
        const status = parsePing(await readContent(request, BODY_BYTES_MAX));
        await presence.ping(user, status, () => clients.network(request));
        return new Response();
      },
      { parse: "none", detail: PING },
    )
    .get(
      "/subscribe/:userid",
      ({ request, params }) => openStream(deps, request, () => parseUserids([params.userid])),
      { detail: streamDetail("Watch a user") },
    )
    .get(
      "/subscribe/:userid/client/:clientid",
      ({ request, params }) => openStream(deps, request, () => parseUserids([params.userid])),
      { detail: streamDetail("Watch a user; the client id only names the stream") },
    )
    .get("/subscribe", ({ request }) => openStream(deps, request, () => Users.of(request).users), {
      detail: streamDetail("Watch several users", ...queryParameters(Users)),
    })
    .get(
      "/presence",
      async ({ request }) =>
        Response.json(
          await presence.snapshot(await callers.watcher(request), Users.of(request).users),
        ),
      { detail: SNAPSHOT },
    )
    .get("/presence/ws", ({ request }) => upgrade(deps, request), { detail: SOCKET });
}

/** Builds the route by which backends get tokens for their users. */
export function tokenRoutes({ tokens, clock }: TokenRoutesDeps) {
  return new Elysia({
    name: "presence-tokens",
    ...mount({ audience: "backend", tag: "Presence", errors: renderError }),
  }).post(
    "/presence/tokens",
    async ({ request }) => {
      const { ttl_s: ttlS, ...claim } = parseTokenRequest(
        await readContent(request, BODY_BYTES_MAX),
      );
      const expiresAt = Math.floor(clock.epochMs() / 1000) + ttlS;
      return { token: await tokens.sign(claim, expiresAt), expires_at: expiresAt };
    },
    { parse: "none", detail: TOKENS },
  );
}

async function openStream(
  { presence, hub, seats, callers, clients }: PresenceRoutesDeps,
  request: Request,
  named: () => string[],
): Promise<Response> {
  const caller = await callers.watcher(request);
  const userids = named();
  const seat = seats.take(caller, clients.network(request));
  const topics = await prepare(hub, seat, userids);
  const lastEventId = lastEventIdOf(request);
  const source = new EventStream({ presence, hub }, caller, { topics, lastEventId, seat });
  return new Response(new ReadableStream(source), {
    headers: {
      "content-type": "text/event-stream",
      "cache-control": "no-cache, no-transform",
      "x-accel-buffering": "no",
    },
  });
}

/** Prepares the topics; gives up the seat if that fails. */
async function prepare(hub: Hub, seat: Seat, userids: string[]): Promise<Topic[]> {
  try {
    seat.watch(userids.length);
    return await hub.prepare(userids);
  } catch (error) {
    seat.leave();
    throw error;
  }
}

async function upgrade(
  { presence, hub, seats, callers, clients }: PresenceRoutesDeps,
  request: Request,
): Promise<Response> {
  const caller = await callers.watcher(request);
  const offered = request.headers.get("sec-websocket-protocol") ?? "";
  const isMsgpack = offered.split(",").some((protocol) => protocol.trim() === MSGPACK_PROTOCOL);
  const seat = seats.take(caller, clients.network(request));
  const lastEventId = lastEventIdOf(request);
  const socket = new Socket({ presence, hub }, caller, { isMsgpack, lastEventId, seat });
  // An empty value keeps Bun from accepting the first protocol that the client offers.
  const headers = { "sec-websocket-protocol": isMsgpack ? MSGPACK_PROTOCOL : "" };
  if (!clients.upgrade(request, socket, headers)) {
    seat.leave();
    throw new AppError("upgrade_required", "this route is a WebSocket", {
      headers: { connection: "upgrade", upgrade: "websocket" },
    });
  }
  // Bun has already sent the response; this one is for the log and the metrics.
  return new Response(null, { status: 101 });
}

/**
 * Reads the last event id from the header or the query: EventSource sends the header only when it
 * reconnects by itself, so code that makes a new EventSource uses the parameter.
 */
function lastEventIdOf(request: Request): string | undefined {
  return request.headers.get("last-event-id") ?? Resume.of(request).lastEventId;
}

const ACCESS =
  "`X-User-Claim` counts if the TCP peer is a proxy in TRUSTED_PROXIES; all other callers need a user token as `Authorization: Bearer` or `?token=`.";

const PING = {
  summary: "Report that a device is online",
  description: `The status is any text; 0 is active, 1 away, 2 do not disturb, 3 invisible. Without a body the status stays unchanged. ${ACCESS}`,
  parameters: queryParameters(Access),
  ...jsonBody(Ping, { status: "0" }, false),
  responses: { 200: { description: "Recorded" } },
};

const SNAPSHOT = {
  summary: "Read who is online now",
  description: `\`time\` and \`status\` are null for users who were never seen. ${ACCESS}`,
  parameters: [...queryParameters(Users), ...queryParameters(Access)],
  responses: {
    200: json({
      ann: { time: 1_760_000_000, status: "0", online: true },
      bob: { time: null, status: null, online: false },
    }),
  },
};

const SOCKET = {
  summary: "Ping and watch over a WebSocket",
  description: `Text frames are JSON; with the subprotocol ${MSGPACK_PROTOCOL} every frame is MessagePack. The client sends {"type":"ping","status"}, {"type":"subscribe","users"}, {"type":"unsubscribe","users"} and {"type":"bye"}; the server {"type":"presence","userid","time","status","online","clientid","id"} and {"type":"error","code","message"}. ${ACCESS}`,
  parameters: [...queryParameters(Resume), ...queryParameters(Access)],
  responses: { 101: { description: "A WebSocket" }, ...errors(426) },
};

const TOKENS = {
  summary: "Issue a user token",
  description: "For a user whom your backend has authenticated. `expires_at` is epoch seconds.",
  ...jsonBody(TokenRequest, { userid: "ann", clientid: "phone", ttl_s: 3600 }),
  responses: { 200: json({ token: "eyJhbGciOiJIUzI1NiJ9…", expires_at: 1_760_003_600 }) },
};

function streamDetail(summary: string, ...users: ReturnType<typeof queryParameters>) {
  return {
    summary,
    parameters: [...users, ...queryParameters(Resume), ...queryParameters(Access)],
    description: `Sends the present state at once, then an event for each ping. With \`Last-Event-ID\`, or \`?lastEventId=\`, it begins with the changes since that event, up to ten minutes back. ${ACCESS}`,
    responses: {
      200: {
        description: "An event stream",
        content: {
          "text/event-stream": {
            example:
              'id: 1760000000123.000-k3f9-1-7x2\ndata: {"time":1760000000,"status":"0","online":true,"userid":"ann","clientid":"phone"}\n\n',
          },
        },
      },
    },
  };
}
