import { afterAll, beforeAll, expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { AuthServer, signedIn } from "../support/auth-server.ts";
import { EventStream } from "../support/event-stream.ts";
import { timed } from "../support/eventually.ts";
import { Nginx } from "../support/nginx.ts";
import { PresenceSocket } from "../support/presence-socket.ts";
import { aUser, bearerOf, claim, mint, ping, snapshot, watching } from "../support/presence.ts";
import { RawSocket } from "../support/raw-socket.ts";

const PROMPT_MS = 1000;

let app: TestApp;
let nginx: Nginx;
let stranger: TestApp;
let strangerProxy: Nginx;
const auth = new AuthServer();

beforeAll(async () => {
  [app, stranger] = await Promise.all([
    TestApp.start(),
    // Peers on this machine are not among its proxies.
    TestApp.start({ env: { TRUSTED_PROXIES: "10.0.0.0/8" } }),
  ]);
  [nginx, strangerProxy] = await Promise.all([
    Nginx.start({ upstream: app.url, auth: auth.url }),
    Nginx.start({ upstream: stranger.url, auth: auth.url }),
  ]);
});

afterAll(async () => {
  for (const owner of [nginx, strangerProxy, app, stranger]) await owner[Symbol.asyncDispose]();
  auth[Symbol.dispose]();
});

async function pingThrough(
  { url }: { url: string },
  headers: Record<string, string>,
): Promise<Response> {
  return await fetch(`${url}/ping`, { method: "POST", headers, body: '{"status":"2"}' });
}

test("a ping is from whom the auth server names, whatever the client claims", async () => {
  const [ann, eve] = [aUser("ann"), aUser("eve")];
  const headers = { ...signedIn(ann, "phone"), ...claim(eve, "laptop") };
  expect((await pingThrough(nginx, headers)).status).toBe(200);
  expect(await snapshot(app, [ann, eve])).toEqual({
    [ann]: { time: expect.any(Number), status: "2", online: true },
    [eve]: { time: null, status: null, online: false },
  });
});

test("who is not signed in does not pass the proxy", async () => {
  const eve = aUser("eve");
  expect((await pingThrough(nginx, claim(eve))).status).toBe(401);
  expect(await snapshot(app, [eve])).toMatchObject({ [eve]: { online: false, time: null } });
});

test("a stream opens and brings its events at once through a proxy that buffers", async () => {
  const [ann, bob] = [aUser("ann"), aUser("bob")];
  const opening = await timed(
    async () => await EventStream.open(nginx, watching(ann), signedIn(bob, "phone")),
  );
  using stream = opening.result;
  expect(stream.status).toBe(200);
  expect(opening.ms).toBeLessThan(PROMPT_MS);
  for (const status of ["0", "1"]) {
    await ping(app, { userid: ann, clientid: "phone", status });
    const { result, ms } = await timed(async () => await stream.presence());
    expect(result).toMatchObject({ userid: ann, status, online: true, clientid: "phone" });
    expect(ms).toBeLessThan(PROMPT_MS);
  }
});

test("a stream through the proxy belongs to the claimed user, who sees the own invisible device", async () => {
  const [ann, bob] = [aUser("ann"), aUser("bob")];
  using own = await EventStream.open(nginx, watching(ann), signedIn(ann, "laptop"));
  using foreign = await EventStream.open(nginx, watching(ann), signedIn(bob, "phone"));
  await ping(app, { userid: ann, clientid: "phone", status: "3" });
  expect(await own.presence()).toMatchObject({ userid: ann, status: "3", online: true });
  await ping(app, { userid: ann, clientid: "phone", status: "0" });
  expect(await foreign.presence()).toMatchObject({ userid: ann, status: "0", online: true });
});

test("a WebSocket passes the proxy and pings for the claimed device", async () => {
  const [ann, bob] = [aUser("ann"), aUser("bob")];
  using watcher = await PresenceSocket.open(nginx, { headers: signedIn(bob, "laptop") });
  await watcher.subscribe(ann);
  const headers = { ...signedIn(ann, "phone"), ...claim(bob, "forged") };
  using pinger = await PresenceSocket.open(nginx, { headers, msgpack: true });
  pinger.send({ type: "ping", status: "1" });
  const seen = { userid: ann, clientid: "phone", status: "1", online: true };
  expect(await watcher.presence()).toMatchObject(seen);
});

test("tokens are not minted for requests that come through a proxy without a server key", async () => {
  const answer = await fetch(`${nginx.url}/presence/tokens`, {
    method: "POST",
    headers: { "content-type": "application/json", ...signedIn("ann", "phone") },
    body: '{"userid":"bob"}',
  });
  expect(answer.status).toBe(403);
});

test("a claim from a proxy that is not trusted is ignored and answered 401", async () => {
  const ann = aUser("ann");
  const headers = signedIn(ann, "phone");
  expect((await pingThrough(strangerProxy, headers)).status).toBe(401);
  for (const path of [watching(ann), `/subscribe/${ann}/client/x`, `/presence?users=${ann}`])
    expect((await fetch(strangerProxy.url + path, { headers })).status).toBe(401);
  using socket = await RawSocket.open(strangerProxy, { headers });
  expect(socket.status).toBe(401);
});

test("a token counts through a proxy that is not trusted, and names its own user", async () => {
  const [ann, eve] = [aUser("ann"), aUser("eve")];
  const { token } = await mint(stranger, { userid: ann, clientid: "phone" });
  const headers = { ...signedIn(eve, "laptop"), ...bearerOf(token) };
  expect((await pingThrough(strangerProxy, headers)).status).toBe(200);
  expect(await snapshot(stranger, [ann, eve], bearerOf(token))).toMatchObject({
    [ann]: { status: "2", online: true },
    [eve]: { online: false },
  });
});
