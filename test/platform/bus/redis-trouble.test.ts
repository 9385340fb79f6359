import { describe, expect, setDefaultTimeout, test } from "bun:test";

import { type Config } from "../../../src/platform/config/config.ts";
import { openBus } from "../../../src/platform/bus/open-bus.ts";
import { TestApp } from "../../support/app.ts";
import { aBatch } from "../../support/batches.ts";
import { EventStream } from "../../support/event-stream.ts";
import { eventually } from "../../support/eventually.ts";
import { LogLines } from "../../support/log-lines.ts";
import { type Target, aUser, ping, watching } from "../../support/presence.ts";
import { aProject } from "../../support/projects.ts";
import { RedisServer } from "../../support/redis-server.ts";
import { append, serverBeside } from "../../support/requests.ts";
import { TcpProxy } from "../../support/tcp-proxy.ts";

setDefaultTimeout(60_000);

const NOTICED_MS = 5000;
const WHILE_MS = 2000;
const PREFIX = "fg:";
const NO_LIMITS = { project: undefined, session: undefined, address: undefined };
// ACL rules of docs/deployment.md for Floodgate's own user.
const OWN = ["resetkeys", "resetchannels", `~${PREFIX}*`, `&${PREFIX}*`, "-@all"];
const COMMANDS = ["hset", "hgetall", "hlen", "hdel", "pexpire", "publish", "subscribe", "ping"];
const LIMIT_COMMANDS = ["eval", "evalsha", "set", "incrby", "pttl", "expire"];

const app = TestApp.forTests();
/** Starts a server that uses the Redis at that address, and collects its log. */
async function aServer(url: string, rateLimits: Config["rateLimits"] = NO_LIMITS) {
  const lines = new LogLines();
  const config = { ...app.config, redis: { url, prefix: PREFIX }, rateLimits };
  const server = await serverBeside(app, { config, log: lines.log });
  return Object.assign(server, { lines });
}

/** Opens only the bus of such a server. */
async function aBus(url: string) {
  const lines = new LogLines();
  const named = { ...app.config, redis: { url, prefix: PREFIX } };
  const opened = await openBus(named, app.sql, lines.log);
  return {
    lines,
    becomes: async (isUp: boolean, withinMs = NOTICED_MS) =>
      await eventually(`up is ${isUp}`, () => opened.bus.isUp === isUp, withinMs),
    [Symbol.asyncDispose]: async () => await opened[Symbol.asyncDispose](),
  };
}

async function becomes(target: Target, redis: "ok" | "down", withinMs = NOTICED_MS): Promise<void> {
  const body = { status: redis === "ok" ? "ok" : "degraded", postgres: "ok", objects: "ok", redis };
  let seen: unknown;
  await eventually(
    `Redis is ${redis}`,
    async () => {
      const answer = await fetch(`${target.url}/readyz`);
      seen = [answer.status, await answer.json()];
      return Bun.deepEquals(seen, [200, body]);
    },
    withinMs,
  ).catch((error: unknown) => {
    throw new Error(`${String(error)}: ${JSON.stringify(seen)}`);
  });
}

type Commands = [command: string, ...args: string[]][];
const acl = (...rules: string[]): Commands => [["ACL", "SETUSER", "fg", ...rules]];
const config = (name: string, value: string): Commands => [["CONFIG", "SET", name, value]];
const cut: Commands = [
  ["CLIENT", "KILL", "TYPE", "normal"],
  ["CLIENT", "KILL", "TYPE", "pubsub"],
];

describe("the bus is down, which few lines explain, until Redis works again, when", () => {
  test.concurrent.each<[string, Commands, Commands, string]>([
    ["it is full", config("maxmemory", "1"), config("maxmemory", "0"), "maxmemory is reached"],
    [
      "it lacks replicas",
      config("min-replicas-to-write", "1"),
      config("min-replicas-to-write", "0"),
      "NOREPLICAS",
    ],
    [
      "it has become a replica",
      [["REPLICAOF", "127.0.0.1", "1"]],
      [["REPLICAOF", "NO", "ONE"]],
      "REDIS_URL leads to a replica",
    ],
    [
      "it is a replica that has lost its primary",
      [
        ...config("replica-read-only", "no"),
        ...config("replica-serve-stale-data", "no"),
        ["REPLICAOF", "127.0.0.1", "1"],
      ],
      [["REPLICAOF", "NO", "ONE"]],
      "MASTERDOWN",
    ],
    ["channels are denied", acl("resetchannels"), acl(`&${PREFIX}*`), `needs &${PREFIX}*`],
    ["keys are denied", acl("resetkeys"), acl(`~${PREFIX}*`), `needs ~${PREFIX}*`],
    ["a write is denied", acl("-hset"), acl("+hset"), "needs +hset"],
    ["publishing is denied", acl("-publish"), acl("+publish"), "needs +publish"],
    ["listening is denied", [...acl("-subscribe"), ...cut], acl("+subscribe"), "needs +subscribe"],
    [
      "the password is another one",
      [...acl("resetpass", ">other"), ...cut],
      acl(">secret"),
      "password in REDIS_URL is wrong",
    ],
  ])("%s", async (_what, harm, mend, told) => {
    await using redis = await RedisServer.start();
    await using bus = await aBus(await redis.urlFor("fg", "secret"));
    await bus.becomes(true, 4 * NOTICED_MS);
    for (const command of harm) await redis.run(...command);
    await bus.becomes(false);
    await eventually("the log says why", () => bus.lines.with(told).length > 0);
    await Bun.sleep(WHILE_MS);
    await bus.becomes(false);
    expect(bus.lines.with(told)).toHaveLength(1);
    expect(bus.lines.lines.length).toBeLessThan(8);
    for (const command of mend) await redis.run(...command);
    await bus.becomes(true);
  });

  test.concurrent("a user is enough who may do little else", async () => {
    await using redis = await RedisServer.start();
    const url = await redis.urlFor("fg", "secret", ...OWN, ...COMMANDS.map((name) => `+${name}`));
    await using one = await aServer(url);
    await using other = await aServer(url);
    for (const server of [one, other]) await becomes(server, "ok", 4 * NOTICED_MS);
    const ann = aUser("ann");
    using stream = await EventStream.open(other, watching(ann));
    await ping(one, { userid: ann, clientid: "phone", status: "2" });
    expect(await stream.presence()).toMatchObject({ userid: ann, status: "2" });
    expect(one.lines.lines.filter((line) => line.includes("err"))).toEqual([]);
  });

  test.concurrent.each<[string, (port: number) => string]>([
    ["no password is given", (port) => `redis://127.0.0.1:${port}`],
    ["TLS is asked for where there is none", (port) => `rediss://fg:secret@127.0.0.1:${port}`],
  ])("%s", async (_what, urlOf) => {
    await using redis = await RedisServer.start();
    await redis.urlFor("fg", "secret");
    await redis.run("ACL", "SETUSER", "admin", "on", "nopass", "~*", "&*", "+@all");
    await redis.run("CONFIG", "SET", "requirepass", "secret");
    await using bus = await aBus(urlOf(redis.port));
    await eventually("the log says why", () => bus.lines.with("Redis cannot be used").length > 0);
    await Bun.sleep(WHILE_MS);
    await bus.becomes(false);
    expect(bus.lines.lines.length).toBeLessThan(8);
  });
});

describe("rate limits with a Redis that does not count are those of each process, and the log says why,", () => {
  const perSecond = 4;
  const points = perSecond * 5;
  test.concurrent.each<[string, Commands, string]>([
    ["when scripts are denied", acl("-evalsha", "-eval"), "needs +evalsha"],
    ["when a replica answers", [["REPLICAOF", "127.0.0.1", "1"]], "REDIS_URL leads to a replica"],
  ])("%s", async (_what, harm, told) => {
    await using redis = await RedisServer.start();
    const url = await redis.urlFor("fg", "secret");
    await using server = await aServer(url, { ...NO_LIMITS, project: perSecond });
    await becomes(server, "ok", 4 * NOTICED_MS);
    for (const command of harm) await redis.run(...command);
    const project = await aProject(app);
    const session = await app.aSession({ projectID: project.projectID });
    const statuses: number[] = [];
    for (let nth = 0; nth < 2 * points; nth++) {
      const batch = aBatch({ salt: `${nth}` });
      statuses.push((await append(server, session, batch)).status);
    }
    expect(statuses.filter((status) => status === 200).length).toBeGreaterThanOrEqual(points);
    expect(statuses).toContain(429);
    await eventually("the log says why", () => server.lines.with(told).length > 0);
    expect(server.lines.lines.length).toBeLessThan(8);
  });

  test.concurrent("and shared by a user who may do what scripts do", async () => {
    await using redis = await RedisServer.start();
    const commands = [...COMMANDS, ...LIMIT_COMMANDS].map((name) => `+${name}`);
    const url = await redis.urlFor("fg", "secret", ...OWN, ...commands);
    await using one = await aServer(url, { ...NO_LIMITS, project: perSecond });
    await using other = await aServer(url, { ...NO_LIMITS, project: perSecond });
    for (const server of [one, other]) await becomes(server, "ok", 4 * NOTICED_MS);
    const project = await aProject(app);
    const session = await app.aSession({ projectID: project.projectID });
    const statuses: number[] = [];
    for (let nth = 0; nth < 2 * points; nth++)
      for (const server of [one, other])
        statuses.push((await append(server, session, aBatch({ salt: `${nth}` }))).status);
    expect(statuses).toContain(429);
    expect(one.lines.with("rate limits")).toEqual([]);
  });
});

/** Starts two servers that connect to Redis through a proxy, and a replica that will take over. */
async function aPair() {
  const [first, second] = [await RedisServer.start(), await RedisServer.start()];
  await second.follow(first);
  const address = await TcpProxy.open(first.url);
  const [one, other] = [
    await aServer(address.urlOf(first.url)),
    await aServer(address.urlOf(first.url)),
  ];
  for (const server of [one, other]) await becomes(server, "ok", 4 * NOTICED_MS);
  return {
    first,
    second,
    address,
    one,
    other,
    switchRoles: async () => {
      await second.follow(undefined);
      await first.follow(second);
    },
    [Symbol.asyncDispose]: async () => {
      for (const part of [one, other, address, first, second]) await part[Symbol.asyncDispose]();
    },
  };
}

describe("a failover that leaves the clients with a replica", () => {
  test.concurrent("is followed as soon as the address leads to the new primary", async () => {
    await using t = await aPair();
    t.address.redirect(t.second.url);
    await t.switchRoles();
    const ann = aUser("ann");
    using stream = await EventStream.open(t.other, watching(ann));
    await eventually(
      "both write to the new primary",
      async () => (await t.second.clients("normal")) >= 2,
      2 * NOTICED_MS,
    );
    for (const server of [t.one, t.other]) await becomes(server, "ok");
    await ping(t.one, { userid: ann, clientid: "phone", status: "2" });
    expect(await stream.presence()).toMatchObject({ userid: ann, status: "2" });
  });

  test.concurrent("is degraded until then, and pings reach the other process all the same", async () => {
    await using t = await aPair();
    await t.switchRoles();
    for (const server of [t.one, t.other]) await becomes(server, "down");
    const ann = aUser("ann");
    using stream = await EventStream.open(t.other, watching(ann));
    await ping(t.one, { userid: ann, clientid: "phone", status: "2" });
    expect(await stream.presence()).toMatchObject({ userid: ann, status: "2" });
    t.address.redirect(t.second.url);
    for (const server of [t.one, t.other]) await becomes(server, "ok");
    await ping(t.one, { userid: ann, clientid: "phone", status: "1" });
    await eventually("it crosses", async () => (await stream.presence()).status === "1");
  });
});
