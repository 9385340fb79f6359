import { afterAll, beforeAll, describe, expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { AuthServer, signedIn } from "../support/auth-server.ts";
import { Caddy } from "../support/caddy.ts";
import { Nginx } from "../support/nginx.ts";
import { PresenceSocket } from "../support/presence-socket.ts";
import { aUser, bearerOf, claim, mint, snapshot } from "../support/presence.ts";
import { type ProxyProcess } from "../support/proxy-process.ts";
import { RawConnection } from "../support/raw-connection.ts";

// apt installs what is missing.
const SETUP_MS_MAX = 180_000;
// Some of them are paths of presence to the server, some may become that.
const ODD = [
  "/subscribe",
  "//subscribe//",
  "/\\subscribe\\",
  "/./subscribe",
  "/x/../subscribe",
  "/x/%2e%2e/subscribe",
  "/%2fsubscribe",
  "/sub%73cribe",
  "/sub%2573cribe",
  "/subscribe%0a",
  "/subscribe/ann",
  "/subscribe\\ann",
  "/subscribe%2fann",
  "/subscribe/a%0ab",
  "/subscribe/ann%0a/client/x",
  "/ingest/subscribe",
  "/ingest\\subscribe",
  "/ingest//subscribe",
  "/ingest/ingest/subscribe",
  "/presence",
  "/presence\\",
  "/presence/./",
  "/.\\subscribe",
  "/x\\..\\subscribe",
  "/%2e\\presence",
  // A segment to the proxy that is two to the server, and the other way round.
  "/subscribe\\x/..",
  "/x%2fy/../subscribe",
  "/x%5cy/../presence",
  "/subscribe/ann%2f..%2f..%2flivez",
  "/subscribe/ann%2f%2E.%2f..%2f..%2flivez/client/x",
];
const ODD_METRICS = [
  "/metrics",
  "//metrics/",
  "/ingest/metrics",
  "/%6detrics",
  "/\\metrics\\",
  "/.\\metrics",
  "/metrics\\x/..",
  "/x%2fy/../metrics",
];

let app: TestApp;
const auth = new AuthServer();

beforeAll(async () => {
  app = await TestApp.start();
}, SETUP_MS_MAX);

afterAll(async () => {
  await app[Symbol.asyncDispose]();
  auth[Symbol.dispose]();
});

describe.each([
  ["nginx", Nginx],
  ["Caddy", Caddy],
] as const)("behind %s as it is shipped", (_name, kind) => {
  let proxy: ProxyProcess;

  beforeAll(async () => {
    proxy = await kind.deployed({ upstreams: [app], auth });
  }, SETUP_MS_MAX);

  afterAll(async () => {
    await proxy[Symbol.asyncDispose]();
  });

  test("a WebSocket pings for whom the auth server names", async () => {
    const [ann, bob] = [aUser("ann"), aUser("bob")];
    using watcher = await PresenceSocket.open(proxy, { headers: signedIn(bob, "laptop") });
    await watcher.subscribe(ann);
    const headers = { ...signedIn(ann, "phone"), ...claim(bob, "forged") };
    using pinger = await PresenceSocket.open(proxy, { headers });
    pinger.send({ type: "ping", status: "1" });
    expect(await watcher.presence()).toMatchObject({ userid: ann, clientid: "phone", status: "1" });
  });

  test.each(["/ping", "/ping/", "//ping", "/ingest/ping"])(
    "a ping to %s is from whom the auth server names, whatever the client claims",
    async (path) => {
      const [ann, eve] = [aUser("ann"), aUser("eve")];
      const send = async (headers: Record<string, string>) =>
        await fetch(proxy.url + path, { method: "POST", headers, body: '{"status":"2"}' });
      expect((await send({ ...signedIn(ann, "phone"), ...claim(eve) })).status).toBe(200);
      expect((await send(claim(eve))).status).toBe(401);
      expect(await snapshot(app, [ann, eve])).toMatchObject({
        [ann]: { status: "2", online: true },
        [eve]: { time: null, online: false },
      });
    },
  );

  test("a claim does not pass where nobody is asked who it is from", async () => {
    for (const path of ["/%70ing", "/presence/../ping", "/presence/tokens"]) {
      using client = await RawConnection.open(proxy.url);
      client.head(`POST ${path}`, { ...claim(aUser("eve")), "content-length": 2 });
      client.write("{}");
      expect((await client.response()).status).toBeGreaterThanOrEqual(400);
    }
  });

  test("a user token passes when the auth server lets it, and a forged claim beside it does not", async () => {
    const [ann, eve] = [aUser("ann"), aUser("eve")];
    using open = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response() });
    await using passing = await kind.deployed({
      upstreams: [app],
      auth: { url: open.url.origin },
    });
    const { token } = await mint(app, { userid: ann, clientid: "phone" });
    const send = async (headers: Record<string, string>) =>
      await fetch(`${passing.url}/ping`, { method: "POST", headers, body: '{"status":"2"}' });
    expect((await send({ ...bearerOf(token), ...claim(eve) })).status).toBe(200);
    expect((await send(claim(eve))).status).toBe(400);
    expect(await snapshot(app, [ann, eve])).toMatchObject({
      [ann]: { status: "2", online: true },
      [eve]: { time: null, online: false },
    });
  });

  test.each(ODD)("nobody watches by %j without being asked who it is", async (path) => {
    using client = await RawConnection.open(proxy.url);
    client.head(`GET ${path}?users=ann`);
    expect([400, 401, 404]).toContain((await client.response()).status);
  });

  test("metrics stay inside", async () => {
    for (const path of ODD_METRICS) {
      using client = await RawConnection.open(proxy.url);
      client.head(`GET ${path}`);
      expect([path, (await client.response()).status]).toEqual([path, 404]);
    }
    expect((await fetch(`${proxy.url}/livez`)).status).toBe(200);
  });
});
