import { describe, expect, setDefaultTimeout, test } from "bun:test";

import { metric, refusalOf } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { EventStream } from "../support/event-stream.ts";
import { eventually } from "../support/eventually.ts";
import { aUser, bearerOf, claim, mint, ping, watching } from "../support/presence.ts";
import { PresenceSocket } from "../support/presence-socket.ts";

setDefaultTimeout(30_000);

const BEHIND_PROXY = { TRUSTED_PROXIES: "127.0.0.0/8,::1/128" };
const UPGRADE = {
  connection: "upgrade",
  upgrade: "websocket",
  "sec-websocket-version": "13",
  "sec-websocket-key": "x3JJHMbDL1EzLkh9GBhXDw==",
};

type Headers = Record<string, string>;

const from = (address: string) => ({ ...claim(aUser()), "x-forwarded-for": address });

const users = (many: number) => Array.from({ length: many }, () => aUser("watched"));

/** Returns the refusal of an event stream. */
const refusedStream = async (app: TestApp, path: string, headers: Headers) => {
  const answer = await app.fetch(path, { headers });
  if (answer.status === 200) await answer.body?.cancel();
  return answer;
};

const refusedSocket = async (app: TestApp, headers: Headers) =>
  await app.fetch("/presence/ws", { headers: { ...UPGRADE, ...headers } });

describe("connections of one user", () => {
  const MAX = 4;
  const app = TestApp.forTests({
    env: { ...BEHIND_PROXY, PRESENCE_CONNECTIONS_USER: String(MAX) },
  });
  test("are bounded, streams and sockets together, and come back when others have gone", async () => {
    const { token } = await mint(app, { userid: aUser() });
    const headers = bearerOf(token);
    using all = new DisposableStack();
    using first = await PresenceSocket.open(app, { headers });
    all.use(await PresenceSocket.open(app, { headers }));
    all.use(await EventStream.open(app, watching(...users(1)), headers));
    using fourth = await EventStream.open(app, watching(...users(1)), headers);
    for (const answer of [
      await refusedSocket(app, headers),
      await refusedStream(app, watching(...users(1)), headers),
      await refusedStream(app, `/subscribe/${aUser()}?token=${token}`, {}),
    ]) {
      expect(answer.headers.get("retry-after")).toBe("5");
      expect(answer.headers.get("access-control-allow-origin")).toBe("*");
      expect(await refusalOf(answer)).toEqual([
        429,
        "too many connections of this user, try again later",
      ]);
    }
    expect(await metric(app, 'floodgate_limited_total{limit="presence_connections_user"}')).toBe(3);
    // A snapshot request is not a connection.
    expect((await app.fetch("/presence?users=ann", { headers })).status).toBe(200);
    using other = await PresenceSocket.open(app, {
      headers: bearerOf((await mint(app, { userid: aUser() })).token),
    });
    expect(other.socket.readyState).toBe(WebSocket.OPEN);

    first.socket.close();
    fourth[Symbol.dispose]();
    const gone = async () =>
      (await metric(app, 'floodgate_presence_connections{transport="sse"}')) === 1 &&
      (await metric(app, 'floodgate_presence_connections{transport="websocket"}')) === 2;
    await eventually("they have gone", gone);
    all.use(await PresenceSocket.open(app, { headers }));
    all.use(await EventStream.open(app, watching(...users(1)), headers));
    expect((await refusedSocket(app, headers)).status).toBe(429);
  });

  test("that were never opened take no place", async () => {
    const headers = claim(aUser());
    for (let i = 0; i < 2 * MAX; i++) {
      expect((await app.fetch("/presence/ws", { headers })).status).toBe(426);
      expect((await app.fetch("/subscribe", { headers })).status).toBe(400);
    }
    using socket = await PresenceSocket.open(app, { headers });
    expect(socket.socket.readyState).toBe(WebSocket.OPEN);
  });
});

test("connections of one address are bounded where it is a client's own", async () => {
  const env = { ...BEHIND_PROXY, PRESENCE_CONNECTIONS_ADDRESS: "2" };
  await using app = await TestApp.start({ env });
  using all = new DisposableStack();
  all.use(await PresenceSocket.open(app, { headers: from("192.0.2.1") }));
  all.use(await EventStream.open(app, watching(aUser()), from("192.0.2.1")));
  expect(await refusalOf(refusedSocket(app, from("192.0.2.1")))).toEqual([
    429,
    "too many connections of this address, try again later",
  ]);
  all.use(await PresenceSocket.open(app, { headers: from("192.0.2.2") }));
  const unnamed = await Promise.all(
    users(5).map((userid) => PresenceSocket.open(app, { headers: claim(userid) })),
  );
  for (const socket of unnamed) socket[Symbol.dispose]();
});

test("connections of a process are bounded, whoever they are", async () => {
  await using app = await TestApp.start({ env: { ...BEHIND_PROXY, PRESENCE_CONNECTIONS: "2" } });
  using all = new DisposableStack();
  all.use(await PresenceSocket.open(app));
  all.use(await PresenceSocket.open(app, { headers: claim(aUser()) }));
  expect(await refusalOf(refusedStream(app, watching(aUser()), {}))).toEqual([
    429,
    "too many connections, try again later",
  ]);
});

describe("users that are watched", () => {
  const BY_USER = 10;
  const IN_ALL = 15;
  const app = TestApp.forTests({
    env: {
      ...BEHIND_PROXY,
      PRESENCE_WATCHED_USER: String(BY_USER),
      PRESENCE_WATCHED: String(IN_ALL),
    },
  });
  test("are bounded for a user over all connections, and for the process over all users", async () => {
    using all = new DisposableStack();
    const headers = claim(aUser());
    const [ann = "", ...others] = users(6);
    using first = await PresenceSocket.open(app, { headers });
    await first.subscribe(ann, ...others);
    // Watching the same user again does not count twice.
    await first.subscribe(ann);
    all.use(await EventStream.open(app, watching(...users(4)), headers));
    first.send({ type: "subscribe", users: users(1) });
    expect(await first.frame()).toEqual({
      type: "error",
      code: "too_many_users",
      message: "too many users are watched by this user, try again later",
    });
    const answer = await refusedStream(app, watching(...users(1)), headers);
    expect(answer.headers.get("retry-after")).toBe("5");
    expect(await refusalOf(answer)).toEqual([
      429,
      "too many users are watched by this user, try again later",
    ]);

    using other = await PresenceSocket.open(app, { headers: claim(aUser()) });
    await other.subscribe(...users(5));
    other.send({ type: "subscribe", users: users(1) });
    expect(await other.frame()).toMatchObject({
      message: "too many users are watched, try again later",
    });

    // Existing watches continue, and unsubscribing frees room.
    await ping(app, { userid: ann, status: "0" });
    expect((await first.presence()).userid).toBe(ann);
    first.send({ type: "unsubscribe", users: [...others, aUser()] });
    const [bob = ""] = users(1);
    await first.subscribe(bob);
    await ping(app, { userid: bob, status: "0" });
    expect((await first.presence()).userid).toBe(bob);
  });

  test("of connections that have gone do not count", async () => {
    await eventually("nobody is there", async () => {
      const open = ["sse", "websocket"].map(
        async (transport) =>
          await metric(app, `floodgate_presence_connections{transport="${transport}"}`),
      );
      return (await Promise.all(open)).every((one) => one === 0);
    });
    for (let round = 0; round < 3; round++) {
      const headers = claim("round");
      using socket = await PresenceSocket.open(app, { headers });
      await socket.subscribe(...users(BY_USER));
      expect(socket.waiting).toBe(0);
      socket.socket.close();
      await socket.closed;
      const none = async () =>
        (await metric(app, 'floodgate_presence_connections{transport="websocket"}')) === 0;
      await eventually("it has gone", none);
    }
  });
});
