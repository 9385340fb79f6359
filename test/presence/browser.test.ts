import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "bun:test";
import { join } from "node:path";

import { pack, unpack } from "msgpackr";
import { type Browser, type Page } from "playwright-core";
import { Type } from "typebox";

import { TestApp } from "../support/app.ts";
import { openBrowser } from "../support/browser.ts";
import { eventually } from "../support/eventually.ts";
import { PresenceFrame, aUser, checked, mint, ping, watching } from "../support/presence.ts";
import { TcpProxy } from "../support/tcp-proxy.ts";

const PAGE = join(import.meta.dir, "../support/watcher.html");
// Chromium waits three seconds before it connects again.
const RECONNECT_MS_MAX = 8000;
const TEST_MS = 60_000;

const Messages = Type.Array(
  Type.Object({
    userid: Type.String(),
    time: Type.Number(),
    status: Type.String(),
    online: Type.Boolean(),
    clientid: Type.String(),
    id: Type.String({ minLength: 1 }),
  }),
);
const States = Type.Array(Type.String());
const TextFrames = Type.Array(Type.String());
const BinaryFrames = Type.Array(Type.Array(Type.Integer()));
const Answer = Type.Object({ status: Type.Integer(), text: Type.String() });

const site = Bun.serve({
  port: 0,
  hostname: "127.0.0.1",
  fetch: () => new Response(Bun.file(PAGE), { headers: { "content-type": "text/html" } }),
});
let browser: Browser;
let app: TestApp;
let page: Page;
let token: string;

beforeAll(async () => {
  // Browsers are not among its proxies: they come with tokens.
  [browser, app] = await Promise.all([
    openBrowser(),
    TestApp.start({ env: { TRUSTED_PROXIES: "10.0.0.0/8" } }),
  ]);
  ({ token } = await mint(app, { userid: aUser("watcher"), clientid: "browser" }));
});

afterAll(async () => {
  await browser.close();
  await app[Symbol.asyncDispose]();
  await site.stop(true);
});

beforeEach(async () => {
  page = await browser.newPage();
  await page.goto(site.url.href);
});

afterEach(async () => await page.close());

/** What an expression is in the page. */
async function inPage<Schema extends Type.TSchema>(
  schema: Schema,
  expression: string,
): Promise<Type.Static<Schema>> {
  return checked(schema, await page.evaluate(expression));
}

async function call(name: string, ...args: unknown[]): Promise<unknown> {
  return await page.evaluate(`${name}(${args.map((arg) => JSON.stringify(arg)).join(",")})`);
}

async function pingAs(userid: string, status: string): Promise<void> {
  const own = await mint(app, { userid, clientid: "phone" });
  await ping(app, { userid, status, token: own.token });
}

async function openSource(path: string, url = app.url): Promise<void> {
  await call("watch", `${url}${path}${path.includes("?") ? "&" : "?"}token=${token}`);
  await reached("open");
}

/** Waits until the EventSource has been in a state. */
async function reached(state: "open" | "connecting" | "closed"): Promise<void> {
  const isIn = async () => (await inPage(States, "states")).includes(state);
  await eventually(`the EventSource is ${state}`, isIn);
}

async function messages(count: number, withinMs?: number): Promise<Type.Static<typeof Messages>> {
  const have = async () => (await inPage(Messages, "messages")).length >= count;
  await eventually(`${count} messages`, have, withinMs);
  return await inPage(Messages, "messages");
}

test("an EventSource of another origin gets each ping as a message", async () => {
  const ann = aUser("ann");
  await openSource(`/subscribe/${ann}/client/browser`);
  await pingAs(ann, "0");
  const [first] = await messages(1);
  expect(first).toMatchObject({ userid: ann, status: "0", online: true, clientid: "phone" });
  expect(first?.time).toBeGreaterThan(Date.now() / 1000 - 60);
  await pingAs(ann, "1");
  expect(await messages(2)).toMatchObject([{ status: "0" }, { status: "1" }]);
});

test("a page of another origin pings with fetch", async () => {
  const ann = aUser("ann");
  const own = await mint(app, { userid: ann, clientid: "browser" });
  await openSource(watching(ann));
  const answer = await call("ping", `${app.url}/ping`, own.token, "2");
  expect(checked(Answer, answer)).toEqual({ status: 200, text: "" });
  expect(await messages(1)).toMatchObject([{ status: "2", clientid: "browser" }]);
});

test(
  "an EventSource that was cut off comes back by itself and is told what it missed, and only that",
  async () => {
    await using proxy = await TcpProxy.open(app.url);
    const [ann, bob] = [aUser("ann"), aUser("bob")];
    await openSource(watching(ann, bob), proxy.urlOf(app.url).replace(/\/$/, ""));
    await pingAs(bob, "0");
    await messages(1);
    await pingAs(ann, "0");
    await messages(2);

    await proxy.refuse();
    const isCut = async () => (await inPage(States, "states")).includes("connecting");
    await eventually("the page notices", isCut);
    await pingAs(ann, "1");
    await proxy.restore();
    const missed = (await messages(3, RECONNECT_MS_MAX)).slice(2);
    expect(missed).toMatchObject([{ userid: ann, status: "1", online: true }]);
    await pingAs(bob, "2");
    expect((await messages(4)).slice(3)).toMatchObject([{ userid: bob, status: "2" }]);
    expect(await inPage(States, "states")).not.toContain("closed");
  },
  TEST_MS,
);

test("an EventSource with a forged token ends and does not try again", async () => {
  const forged = `${token.slice(0, -8)}AAAAAAAA`;
  await call("watch", `${app.url}${watching("ann")}&token=${forged}`);
  await reached("closed");
  expect(await inPage(States, "states")).toEqual(["closed"]);
  expect(await inPage(Type.Integer(), "source.readyState")).toBe(2);
});

test("a WebSocket gets presence as JSON text, and pings", async () => {
  const [ann, eve] = [aUser("ann"), aUser("eve")];
  const own = await mint(app, { userid: eve, clientid: "browser" });
  const url = `${app.url.replace("http", "ws")}/presence/ws?token=${own.token}`;
  expect(await call("connect", url)).toEqual({ protocol: "" });
  await call("send", JSON.stringify({ type: "subscribe", users: [ann, eve] }));
  await call("send", JSON.stringify({ type: "ping", status: "1" }));
  const have = (count: number) => async () => (await inPage(TextFrames, "frames")).length >= count;
  await eventually("the own ping", have(1));
  await pingAs(ann, "2");
  await eventually("the other's ping", have(2));
  const frames = (await inPage(TextFrames, "frames")).map((text) =>
    checked(PresenceFrame, JSON.parse(text)),
  );
  expect(frames).toMatchObject([
    { userid: eve, status: "1", online: true, clientid: "browser" },
    { userid: ann, status: "2", online: true, clientid: "phone" },
  ]);
});

test("a WebSocket that asks for MessagePack gets binary frames only", async () => {
  const ann = aUser("ann");
  const url = `${app.url.replace("http", "ws")}/presence/ws?token=${token}`;
  expect(await call("connect", url, ["floodgate.msgpack"])).toEqual({
    protocol: "floodgate.msgpack",
  });
  await call("send", [...pack({ type: "subscribe", users: [ann] })]);
  await call("send", [...pack({ type: "nonsense" })]);
  const have = (count: number) => async () =>
    (await inPage(BinaryFrames, "frames")).length >= count;
  await eventually("the error", have(1));
  await pingAs(ann, "0");
  await eventually("the ping", have(2));
  const [error, seen] = (await inPage(BinaryFrames, "frames")).map((bytes): unknown =>
    unpack(Uint8Array.from(bytes)),
  );
  expect(error).toMatchObject({ type: "error", code: "bad_frame" });
  expect(checked(PresenceFrame, seen)).toMatchObject({ userid: ann, status: "0", online: true });
});

test("a WebSocket with a forged token is not opened", async () => {
  const url = `${app.url.replace("http", "ws")}/presence/ws?token=${token.slice(0, -8)}AAAAAAAA`;
  expect(await call("connect", url)).toEqual({ code: 1006 });
});
