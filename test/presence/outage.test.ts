import { afterAll, beforeAll, expect, test } from "bun:test";

import { openDatabase } from "../../src/platform/database/database.ts";
import { TestApp } from "../support/app.ts";
import { EventStream } from "../support/event-stream.ts";
import { timed } from "../support/eventually.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { aUser, claim, ping, pingAnswer, snapshot } from "../support/presence.ts";
import { PresenceSocket } from "../support/presence-socket.ts";
import { type ServerBeside, serverBeside } from "../support/requests.ts";
import { TcpProxy } from "../support/tcp-proxy.ts";

const TICKS_MS = 1200;
const PAST_TTL_MS = 61_000;

const clock = new FakeClock();
let app: TestApp;
let proxy: TcpProxy;
let server: ServerBeside;

beforeAll(async () => {
  app = await TestApp.start({ clock });
  proxy = await TcpProxy.open(app.databaseUrl);
  server = await serverBeside(app, { databaseUrl: proxy.urlOf(app.databaseUrl), clock });
});

afterAll(async () => {
  await proxy.restore();
  await server[Symbol.asyncDispose]();
  await proxy[Symbol.asyncDispose]();
  await app[Symbol.asyncDispose]();
});

/** While PostgreSQL does not answer this server, and nothing else carries presence. */
async function whileSilent(work: () => Promise<void>): Promise<void> {
  proxy.freeze();
  try {
    await work();
  } finally {
    await proxy.restore();
  }
}

test("while no store answers nobody is called offline, and everybody who is once one does", async () => {
  const [ann, bob] = [aUser("ann"), aUser("bob")];
  using stream = await EventStream.open(server, `/subscribe?users=${ann},${bob}`);
  for (const userid of [ann, bob]) {
    await ping(server, { userid, status: "0" });
    expect(await stream.presence()).toMatchObject({ userid, online: true });
  }
  await whileSilent(async () => {
    clock.advance(PAST_TTL_MS);
    // Another process hears that one of them is there.
    await ping(app, { userid: ann, status: "0" });
    await Bun.sleep(TICKS_MS);
    expect(stream.waiting).toBe(0);
  });
  const told = [await stream.presence(), await stream.presence()];
  expect(told.find(({ userid }) => userid === bob)).toMatchObject({ online: false });
  expect(told.find(({ userid }) => userid === ann)).toMatchObject({ online: true });
});

test("a ping with a status is taken while the database is silent, and shows", async () => {
  const userid = aUser();
  using stream = await EventStream.open(server, `/subscribe/${userid}`);
  await whileSilent(async () => {
    const { ms } = await timed(async () => await ping(server, { userid, status: "2" }));
    expect(ms).toBeLessThan(300);
    expect(await stream.presence()).toMatchObject({ status: "2", online: true });
    expect(await snapshot(server, [userid])).toMatchObject({ [userid]: { status: "2" } });
    // The status before is known to this process.
    await ping(server, { userid });
    expect(await stream.presence()).toMatchObject({ status: "2", online: true });
  });
});

test("a ping whose status before cannot be known is refused, so that nobody invisible is shown", async () => {
  const userid = aUser();
  await ping(app, { userid, status: "3" });
  clock.advance(20_000);
  await Bun.sleep(TICKS_MS);
  clock.advance(20_000);
  await Bun.sleep(TICKS_MS);
  await whileSilent(async () => {
    expect((await pingAnswer(server, { userid })).status).toBe(503);
    using socket = await PresenceSocket.open(server, { headers: claim(userid, "phone") });
    socket.send({ type: "ping" });
    expect(await socket.error()).toBe("unavailable");
  });
});

test("streams open while the database is silent, and have the state once it answers", async () => {
  const userid = aUser();
  await ping(app, { userid, status: "1" });
  clock.advance(20_000);
  await Bun.sleep(TICKS_MS);
  clock.advance(20_000);
  await Bun.sleep(TICKS_MS);
  let stream: EventStream | undefined;
  await whileSilent(async () => {
    const opened = await timed(async () => await EventStream.open(server, `/subscribe/${userid}`));
    stream = opened.result;
    expect(opened.ms).toBeLessThan(1500);
  });
  expect(await stream?.presence()).toMatchObject({ userid, status: "1", online: true });
  stream?.[Symbol.dispose]();
});

test("a server that PostgreSQL does not answer stops within ten seconds all the same", async () => {
  const other = await TcpProxy.open(app.databaseUrl);
  const own = await serverBeside(app, { databaseUrl: other.urlOf(app.databaseUrl), clock });
  using stream = await EventStream.open(own, `/subscribe/${aUser()}`);
  other.freeze();
  for (let nth = 0; nth < 20; nth++) await ping(own, { userid: aUser(), status: "0" });
  const { ms } = await timed(async () => await own[Symbol.asyncDispose]());
  expect(ms).toBeLessThan(8000);
  expect(await stream.ended).toBe("end of stream");
  await other[Symbol.asyncDispose]();
});

test("what others write on the bus harms nobody", async () => {
  const userid = aUser();
  using stream = await EventStream.open(server, `/subscribe/${userid}`);
  const sql = openDatabase(app.databaseUrl, { connections: 1 });
  const [{ schema }] = await sql<[{ schema: string }]>`select current_schema() as schema`;
  for (const payload of [
    "garbage",
    "presence:0\n",
    "presence:0\n5",
    'presence:0\n["x",{"a":1},[1]]',
  ])
    await sql`select pg_notify(${`floodgate_${schema}`}, ${payload})`;
  await sql.end();
  await ping(app, { userid, status: "0" });
  expect(await stream.presence()).toMatchObject({ userid, online: true });
});
