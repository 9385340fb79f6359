import { SignJWT, UnsecuredJWT, decodeJwt } from "jose";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";

import { metric, refusalOf } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { EventStream } from "../support/event-stream.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { aUser, bearerOf, claim, mint, ping, pingAnswer, snapshot } from "../support/presence.ts";
import { PresenceSocket } from "../support/presence-socket.ts";
import { RawSocket } from "../support/raw-socket.ts";
import { serverBeside } from "../support/requests.ts";

const AUDIENCE = "floodgate:presence";
const NOBODY_TRUSTED = { TRUSTED_PROXIES: "192.0.2.0/24" };
const SECRETS = { TOKEN_SECRET: "new-secret,old-secret" };

const clock = new FakeClock();
/** From here every caller is a stranger. */
const app = TestApp.forTests({ clock, env: { ...NOBODY_TRUSTED, ...SECRETS } });

type Forgery = { secret?: string; audience?: string; expiresInS?: number; alg?: string };

/** A token as the server would sign it, but for what is given. */
async function signed(
  userid: string,
  { secret = "new-secret", audience = AUDIENCE, expiresInS = 3600, alg = "HS256" }: Forgery = {},
): Promise<string> {
  return await new SignJWT({ clientid: "phone" })
    .setProtectedHeader({ alg })
    .setSubject(userid)
    .setAudience(audience)
    .setIssuedAt(clock.epochS)
    .setExpirationTime(clock.epochS + expiresInS)
    .sign(new TextEncoder().encode(secret));
}

/** The status of every route of presence with these credentials. */
async function statuses({ headers = {}, query = "" } = {}): Promise<Record<string, number>> {
  const suffix = query && `?${query}`;
  const open = async (path: string): Promise<number> => {
    using stream = await EventStream.open(app, path, headers);
    return stream.status;
  };
  using socket = await RawSocket.open(app, { query, headers });
  return {
    ping: (await app.post("/ping", '{"status":"0"}', headers)).status,
    subscribe: await open(`/subscribe/ann${suffix}`),
    "subscribe client": await open(`/subscribe/ann/client/phone${suffix}`),
    "subscribe many": await open(`/subscribe?users=ann,bob${query && `&${query}`}`),
    presence: (await app.fetch(`/presence?users=ann${query && `&${query}`}`, { headers })).status,
    socket: socket.status,
  };
}

const ALL_REFUSED = {
  ping: 401,
  subscribe: 401,
  "subscribe client": 401,
  "subscribe many": 401,
  presence: 401,
  socket: 401,
};
const ALL_TAKEN = {
  ping: 200,
  subscribe: 200,
  "subscribe client": 200,
  "subscribe many": 200,
  presence: 200,
  socket: 101,
};

describe("from a peer that is not trusted", () => {
  test("nothing is taken without a token, and a claim is none", async () => {
    expect(await statuses()).toEqual(ALL_REFUSED);
    expect(await statuses({ headers: claim("ann", "phone") })).toEqual(ALL_REFUSED);
    const forwarded = { ...claim("ann"), "x-forwarded-for": "192.0.2.1", "x-real-ip": "192.0.2.1" };
    expect(await statuses({ headers: forwarded })).toEqual(ALL_REFUSED);
  });

  test("the refusal is JSON that any page may read", async () => {
    const answer = await app.post("/ping", '{"status":"0"}', claim("ann"));
    expect(answer.headers.get("access-control-allow-origin")).toBe("*");
    const [status, text] = await refusalOf(answer);
    expect(status).toBe(401);
    expect(text).not.toBe("");
  });

  test("a minted token opens everything", async () => {
    const { token } = await mint(app, { userid: "ann", clientid: "phone" });
    expect(await statuses({ headers: bearerOf(token) })).toEqual(ALL_TAKEN);
    const { ping: _ping, ...watching } = await statuses({ query: `token=${token}` });
    const { ping: _taken, ...taken } = ALL_TAKEN;
    expect(watching).toEqual(taken);
  });

  test("a token may watch any user, and pings for its own alone", async () => {
    const [ann, bob] = [aUser("ann"), aUser("bob")];
    const { token } = await mint(app, { userid: ann, clientid: "phone" });
    using stream = await EventStream.open(app, `/subscribe?users=${ann},${bob}`, bearerOf(token));
    const headers = { ...bearerOf(token), ...claim(bob, "desk") };
    expect((await app.post("/ping", '{"status":"1"}', headers)).status).toBe(200);
    expect(await stream.presence()).toMatchObject({ userid: ann, clientid: "phone" });
    expect(await snapshot(app, [bob], bearerOf(token))).toMatchObject({ [bob]: { time: null } });
  });

  test.each<[string, (userid: string) => Promise<string> | string]>([
    ["of another secret", async (userid) => await signed(userid, { secret: "guess" })],
    ["of another audience", async (userid) => await signed(userid, { audience: "floodgate" })],
    ["that has expired", async (userid) => await signed(userid, { expiresInS: -1 })],
    ["of another algorithm", async (userid) => await signed(userid, { alg: "HS512" })],
    [
      "that is not signed",
      (userid) =>
        new UnsecuredJWT({ clientid: "phone" })
          .setSubject(userid)
          .setAudience(AUDIENCE)
          .setExpirationTime(clock.epochS + 3600)
          .encode(),
    ],
    [
      "whose user was changed",
      async (userid) => {
        const [head, body = "", signature] = (await signed("zoe")).split(".");
        const fields = { ...decodeJwt(`${head}.${body}.${signature}`), sub: userid };
        return [head, Buffer.from(JSON.stringify(fields)).toString("base64url"), signature].join(
          ".",
        );
      },
    ],
    ["whose signature is cut", async (userid) => (await signed(userid)).slice(0, -1)],
    ["without a user", async () => await signed("")],
    ["of a user of 129 characters", async () => await signed("u".repeat(129))],
    ["that is none", () => "token"],
    ["of 12,000 characters", () => "x".repeat(12_000)],
  ])("a token %s is refused everywhere", async (_what, forge) => {
    const token = await forge("ann");
    expect(await statuses({ headers: bearerOf(token) })).toEqual(ALL_REFUSED);
    expect(await statuses({ query: `token=${token}` })).toEqual(ALL_REFUSED);
  });

  test("a token without an end is refused, so that none is valid for ever", async () => {
    const token = await new SignJWT({})
      .setProtectedHeader({ alg: "HS256" })
      .setSubject("ann")
      .setAudience(AUDIENCE)
      .sign(new TextEncoder().encode("new-secret"));
    expect(await statuses({ headers: bearerOf(token) })).toEqual(ALL_REFUSED);
  });

  test("the token of a session is not one of a user", async () => {
    const { token } = await app.aSession();
    expect(await statuses({ headers: bearerOf(token) })).toEqual(ALL_REFUSED);
  });

  test("the token of a user is not one of a session", async () => {
    const { token } = await mint(app, { userid: "ann" });
    const answer = app.append({ token, sessionID: "1" }, new Uint8Array(9));
    expect((await refusalOf(answer))[0]).toBe(401);
  });

  test("each secret of the list is good for a token, and the first signs", async () => {
    for (const secret of ["new-secret", "old-secret"])
      expect(await statuses({ headers: bearerOf(await signed("ann", { secret })) })).toEqual(
        ALL_TAKEN,
      );
    const { token } = await mint(app, { userid: "ann" });
    const config = { ...app.config, tokenSecrets: ["old-secret"] };
    await using old = await serverBeside(app, { config, clock });
    expect((await pingAnswer(old, { userid: "ann", status: "0", token })).status).toBe(401);
    const known = await signed("ann", { secret: "old-secret" });
    expect((await pingAnswer(old, { userid: "ann", status: "0", token: known })).status).toBe(200);
  });
});

describe("a token that expires", () => {
  test("while its socket is connected closes it with 3000", async () => {
    const userid = aUser();
    const series = 'floodgate_presence_dropped_total{reason="expired"}';
    const dropped = await metric(app, series);
    const { token } = await mint(app, { userid, ttl_s: 30 });
    const { token: longer } = await mint(app, { userid, ttl_s: 3600 });
    using socket = await PresenceSocket.open(app, { query: `token=${token}` });
    using stays = await PresenceSocket.open(app, { query: `token=${longer}` });
    for (const one of [socket, stays]) await one.subscribe(userid);
    clock.advance(29_000);
    await ping(app, { userid, status: "0", token });
    for (const one of [socket, stays]) expect((await one.presence()).userid).toBe(userid);
    // All connections are looked after within 25 seconds.
    clock.advance(26_000);
    expect((await socket.closed).code).toBe(3000);
    expect(await metric(app, series)).toBe(dropped + 1);
    expect(stays.socket.readyState).toBe(WebSocket.OPEN);
    expect((await pingAnswer(app, { userid, status: "0", token })).status).toBe(401);
  });

  test("while its stream is open ends it", async () => {
    const userid = aUser();
    const { token } = await mint(app, { userid, ttl_s: 30 });
    using stream = await EventStream.open(app, `/subscribe/${userid}`, bearerOf(token));
    clock.advance(56_000);
    expect(await stream.ended).toBe("end of stream");
  });
});

describe("from a trusted peer", () => {
  let trusting: TestApp;

  beforeAll(async () => {
    trusting = await TestApp.start({ clock });
  });

  afterAll(async () => {
    await trusting[Symbol.asyncDispose]();
  });

  test("watching needs neither claim nor token, and pinging does", async () => {
    const userid = aUser();
    using stream = await EventStream.open(trusting, `/subscribe/${userid}`);
    using socket = await PresenceSocket.open(trusting);
    expect([stream.status, socket.socket.readyState]).toEqual([200, WebSocket.OPEN]);
    expect(await snapshot(trusting, [userid])).toHaveProperty(userid);
    expect((await refusalOf(trusting.post("/ping", '{"status":"0"}')))[0]).toBe(400);
  });

  test("a token serves as well as a claim", async () => {
    const userid = aUser();
    const { token } = await mint(trusting, { userid, clientid: "desk" });
    using stream = await EventStream.open(trusting, `/subscribe/${userid}`);
    await ping(trusting, { userid, status: "1", token });
    expect(await stream.presence()).toMatchObject({ userid, clientid: "desk", status: "1" });
  });

  test("a token that is no good is refused", async () => {
    const token = await signed("ann", { secret: "guess" });
    expect((await pingAnswer(trusting, { userid: "ann", status: "0", token })).status).toBe(401);
  });
});
