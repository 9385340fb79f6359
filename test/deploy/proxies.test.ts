import { once } from "node:events";
import { type Server, createServer } from "node:http";
import { type AddressInfo, connect, createServer as createTcpServer } from "node:net";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";

import { metric, sessionRow } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { AuthServer, signedIn } from "../support/auth-server.ts";
import { aBatch } from "../support/batches.ts";
import { Caddy } from "../support/caddy.ts";
import { EventStream } from "../support/event-stream.ts";
import { eventually, timed } from "../support/eventually.ts";
import { freePort } from "../support/free-port.ts";
import { cityRecord, encodeMmdb } from "../support/mmdb.ts";
import { Nginx } from "../support/nginx.ts";
import { PresenceSocket } from "../support/presence-socket.ts";
import { aUser, ping, watching } from "../support/presence.ts";
import { type ProxyProcess } from "../support/proxy-process.ts";
import { Random } from "../support/random.ts";
import { RawConnection } from "../support/raw-connection.ts";
import { UpdateApi, hashesOf } from "../support/updates.ts";

const PROMPT_MS = 200;
// apt installs what is missing.
const SETUP_MS_MAX = 180_000;
const OUTSIDER = "127.0.0.5";
const FORGED = "198.51.100.7";

let folder: string;
let app: TestApp;
const auth = new AuthServer();

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "floodgate-proxies-"));
  const places = {
    [`${OUTSIDER}/32`]: cityRecord("DE", "Land Berlin", "Berlin"),
    [`${FORGED}/32`]: cityRecord("FR", "Île-de-France", "Paris"),
  };
  await writeFile(join(folder, "city.mmdb"), encodeMmdb(places));
  app = await TestApp.start({
    // The proxy's address, not the outsider's.
    env: { TRUSTED_PROXIES: "127.0.0.1/32", GEOIP_DB: join(folder, "city.mmdb") },
  });
}, SETUP_MS_MAX);

afterAll(async () => {
  await app[Symbol.asyncDispose]();
  auth[Symbol.dispose]();
  await rm(folder, { recursive: true });
});

/** The city of a session that is started from an address of its own. */
async function cityOf(url: string, from: string, forwarded: string): Promise<string> {
  const { hostname, port } = new URL(url);
  const socket = connect({ host: hostname, port: Number(port), localAddress: from });
  const body = JSON.stringify({ projectID: app.projectID, trackerVersion: "1.0.14" });
  const head = `host: x\r\nuser-agent: App/1\r\nconnection: close\r\nx-forwarded-for: ${forwarded}\r\ncontent-length: ${body.length}`;
  socket.write(`POST /v1/ios/start HTTP/1.1\r\n${head}\r\n\r\n${body}`);
  let answer = "";
  socket.on("data", (chunk: Buffer) => (answer += chunk.toString()));
  await once(socket, "close");
  const sessionID = /"sessionID":"(\d+)"/.exec(answer)?.[1] ?? "none";
  return String((await sessionRow(app, { sessionID }))["userCity"]);
}

/** Takes each POST that comes and cuts the connection; whoever probes it finds it well. */
class Taker implements Disposable {
  taken = 0;
  readonly #server = createTcpServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", (head: Buffer) => {
      const isPost = head.toString().startsWith("POST");
      if (isPost) this.taken++;
      if (isPost) socket.destroy();
      else socket.end("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    });
  });

  static async start(): Promise<Taker> {
    const taker = new Taker();
    taker.#server.listen(0, "127.0.0.1");
    await once(taker.#server, "listening");
    return taker;
  }

  get url(): string {
    return urlOf(this.#server);
  }

  [Symbol.dispose](): void {
    this.#server.close();
  }
}

function urlOf(server: Pick<Server, "address">): string {
  const address: AddressInfo | string | null = server.address();
  return `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`;
}

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

  test("an upload reaches the server before it is complete", async () => {
    const session = await app.aSession();
    const batch = aBatch({ salt: proxy.url });
    using client = await RawConnection.open(proxy.url);
    client.head("POST /v1/ios/append", {
      authorization: `Bearer ${session.token}`,
      "content-length": batch.length,
    });
    client.write(batch.subarray(0, 100));
    await eventually(
      "the server waits for the rest",
      async () => (await metric(app, "floodgate_inflight_bytes")) > 0,
    );
    client.write(batch.subarray(100));
    expect((await client.response()).status).toBe(200);
    expect(await app.batches(session)).toEqual([batch]);
  });

  test("what is too large is refused by the server's own bound and answer", async () => {
    const { token } = await app.aSession();
    const answer = await fetch(`${proxy.url}/v1/ios/append`, {
      method: "POST",
      headers: { authorization: `Bearer ${token}` },
      body: new Uint8Array(3_000_000),
    });
    expect([answer.status, await answer.json()]).toEqual([413, { error: expect.any(String) }]);
    expect(answer.headers.get("access-control-allow-origin")).toBe("*");
  });

  test("a session is where its client is, whatever addresses it claims to forward", async () => {
    expect(await cityOf(proxy.url, OUTSIDER, FORGED)).toBe("Berlin");
    expect(await cityOf(app.url, OUTSIDER, FORGED)).toBe("Berlin");
  });

  test("events arrive at once", async () => {
    const [ann, bob] = [aUser("ann"), aUser("bob")];
    using stream = await EventStream.open(proxy, watching(ann), signedIn(bob, "phone"));
    for (const status of ["0", "1"]) {
      await ping(app, { userid: ann, clientid: "phone", status });
      const { result, ms } = await timed(async () => await stream.presence());
      expect(result).toMatchObject({ userid: ann, status, clientid: "phone" });
      expect(ms).toBeLessThan(PROMPT_MS);
    }
  });

  test("a WebSocket passes", async () => {
    const [ann, bob] = [aUser("ann"), aUser("bob")];
    using watcher = await PresenceSocket.open(proxy, { headers: signedIn(bob, "laptop") });
    await watcher.subscribe(ann);
    using pinger = await PresenceSocket.open(proxy, { headers: signedIn(ann, "phone") });
    pinger.send({ type: "ping", status: "1" });
    expect(await watcher.presence()).toMatchObject({ userid: ann, clientid: "phone", status: "1" });
  });

  test("a build is published and comes back whole and in ranges", async () => {
    const api = (await UpdateApi.of(app)).at(proxy);
    const bytes = new Random(7).bytes(5_000_000);
    const build = await api.published({ name: `${crypto.randomUUID()}.apk`, bytes });
    const whole = await api.download(build);
    expect(hashesOf(await whole.bytes()).SHA256).toBe(build.SHA256);
    const part = await api.download(build, { range: "bytes=4000000-4000009" });
    expect([part.status, part.headers.get("content-range")]).toEqual([
      206,
      "bytes 4000000-4000009/5000000",
    ]);
    expect(await part.bytes()).toEqual(bytes.subarray(4_000_000, 4_000_010));
  });

  test("a refused connection is tried on the next server, also with a body", async () => {
    const dead = { url: `http://127.0.0.1:${await freePort()}` };
    await using half = await kind.deployed({ upstreams: [dead, app], auth });
    const session = await app.aSession();
    for (let index = 0; index < 20; index++) {
      const answer = await fetch(`${half.url}/v1/ios/append`, {
        method: "POST",
        headers: { authorization: `Bearer ${session.token}` },
        body: aBatch({ salt: String(index), bytes: 1024, messages: 4 }),
      });
      expect(answer.status).toBe(200);
    }
    expect(await app.batches(session)).toHaveLength(20);
  });

  test("a POST that a server may have taken is not sent to another one", async () => {
    using one = await Taker.start();
    using other = await Taker.start();
    await using broken = await kind.deployed({ upstreams: [one, other], auth });
    const answer = await fetch(`${broken.url}/v1/ios/append`, { method: "POST", body: "batch" });
    expect([answer.status, one.taken + other.taken]).toEqual([502, 1]);
  });

  test("connections to the server are used again", async () => {
    const server = createServer((request, response) => {
      request.resume();
      request.on("end", () => response.end());
    });
    let connections = 0;
    server.on("connection", () => connections++);
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    await using kept = await kind.deployed({ upstreams: [{ url: urlOf(server) }], auth });
    for (let index = 0; index < 20; index++)
      await fetch(`${kept.url}/v1/ios/append`, { method: "POST", body: "batch" });
    expect(connections).toBeLessThanOrEqual(5);
    server.close();
  });
});

test("nginx answers 413 itself once client_max_body_size is below what the server takes", async () => {
  await using strict = await Nginx.deployed({
    upstreams: [app],
    auth,
    edit: (text) => text.replace("client_max_body_size 0;", "client_max_body_size 64k;"),
  });
  const { token } = await app.aSession();
  const send = async (body: Uint8Array) =>
    await fetch(`${strict.url}/v1/ios/append`, {
      method: "POST",
      headers: { authorization: `Bearer ${token}` },
      body,
    });
  const refused = await send(aBatch({ bytes: 100_000 }));
  expect([refused.status, await refused.text()]).toEqual([413, expect.stringContaining("nginx")]);
  expect((await send(aBatch({ bytes: 60_000 }))).status).toBe(200);
});
