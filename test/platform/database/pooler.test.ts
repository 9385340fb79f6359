import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";

import { openDatabase } from "../../../src/platform/database/database.ts";
import { objectOf } from "../../support/answers.ts";
import { TestApp, type TestSession } from "../../support/app.ts";
import { aBatch } from "../../support/batches.ts";
import { runCommand } from "../../support/command.ts";
import { line } from "../../support/devices.ts";
import { EventStream } from "../../support/event-stream.ts";
import { eventually, timed } from "../../support/eventually.ts";
import { failureCode } from "../../support/failure.ts";
import { PgBouncer } from "../../support/pgbouncer.ts";
import { aUser, claim, ping, snapshot, watching } from "../../support/presence.ts";
import { PushServer, TokenServer, serviceAccount } from "../../support/push-servers.ts";
import { uploadImage } from "../../support/images.ts";
import { append, statusOf } from "../../support/requests.ts";
import { ServerProcess, envOf } from "../../support/server-process.ts";
import { MAIN } from "../../support/program.ts";

setDefaultTimeout(60_000);

const REQUESTS = process.env["TEST_LONG"] === undefined ? 1000 : 20_000;
const CALLERS = 40;
const NOTICED_MS = 5000;
const KEY = { "x-server-key": "key-of-the-tests" };

let app: TestApp;
let pooler: PgBouncer;
let env: Record<string, string>;
let one: ServerProcess;
let other: ServerProcess;

beforeAll(async () => {
  app = await TestApp.start();
  pooler = await PgBouncer.start(app.databaseUrl);
  env = {
    ...envOf(app),
    DATABASE_URL: pooler.url,
    DATABASE_POOLER: "transaction",
    DATABASE_DIRECT_URL: app.databaseUrl,
    SERVER_KEYS: KEY["x-server-key"],
    TRUSTED_PROXIES: "127.0.0.0/8",
  };
  [one, other] = await Promise.all([ServerProcess.start(env), ServerProcess.start(env)]);
});

afterAll(async () => {
  await Promise.all([one.kill(), other.kill()]);
  await pooler[Symbol.asyncDispose]();
  await app[Symbol.asyncDispose]();
});

test("without being told of the pooler, serve says what to set", async () => {
  const told = { ...env, DATABASE_POOLER: "", DATABASE_DIRECT_URL: "" };
  const { code, err } = await runCommand(["serve"], told);
  expect(err).toContain("set DATABASE_POOLER=transaction");
  expect(code).toBe(2);
});

test("without another way for what listens, serve says what to set", async () => {
  for (const way of [
    { DATABASE_POOLER: "transaction" },
    { DATABASE_POOLER: "", DATABASE_URL: `${pooler.url}?pgbouncer=true` },
  ]) {
    const { code, err } = await runCommand(["serve"], { ...env, ...way, DATABASE_DIRECT_URL: "" });
    expect(err).toContain("DATABASE_DIRECT_URL or REDIS_URL is required");
    expect(code).toBe(2);
  }
});

test("what the pooler does not take of a session is said", async () => {
  const { code, err } = await runCommand(["migrate"], {
    ...env,
    DATABASE_URL: `${pooler.url}?search_path=x`,
    DATABASE_DIRECT_URL: "",
    REDIS_URL: "redis://127.0.0.1:1",
  });
  expect(err).toContain("ALTER ROLE");
  expect(code).toBe(2);
});

test("many requests of all kinds at once are answered, and rightly", async () => {
  const sessions = await Promise.all(Array.from({ length: 8 }, async () => await aSession(one)));
  const refused: string[] = [];
  const expectTaken = async (what: string, request: Promise<Response>) => {
    const answer = await request;
    const text = await answer.text();
    if (answer.status !== 200) refused.push(`${what}: ${answer.status} ${text}`);
  };
  let nth = 0;
  const call = async () => {
    for (let i = nth++; i < REQUESTS; i = nth++) {
      const server = i % 2 === 0 ? one : other;
      const session = sessions[i % sessions.length];
      if (session === undefined) throw new Error("no session");
      const kind = i % kinds.length;
      await expectTaken(`${kind}`, kinds[kind]?.(server, session, i) ?? fetch(server.url));
    }
  };
  await Promise.all(Array.from({ length: CALLERS }, call));
  expect(refused).toEqual([]);
  const [stored] = await app.sql<[{ batches: number; devices: number; images: number }]>`
    select (select count(*) from batches)::integer as batches, (select count(*) from devices)::integer as devices,
      (select count(*) from image_contents)::integer as images`;
  const each = Math.ceil(REQUESTS / kinds.length);
  expect(stored).toEqual({ batches: each, devices: each, images: each });
});

/** Requests whose SQL statements differ in columns and parameter types. */
const kinds = [
  (server: ServerProcess, session: TestSession, i: number) =>
    append(server, session, aBatch({ messages: 2, bytes: 200, salt: `${i}` })),
  (server: ServerProcess, _: TestSession, i: number) =>
    fetch(`${server.url}/devices`, {
      method: "PUT",
      headers: KEY,
      body: JSON.stringify({
        external_id: `d${i}`,
        push_token: `t${i}`,
        send_platform: 1,
        device_platform: 1,
      }),
    }),
  (server: ServerProcess, session: TestSession) =>
    fetch(`${server.url}/v1/sessions/${session.sessionID}/batches`, { headers: KEY }),
  (server: ServerProcess, session: TestSession, i: number) =>
    uploadImage(
      { url: server.url, projectID: app.projectID },
      session,
      `image${i}`,
      Buffer.from(`${i}`),
    ),
  (server: ServerProcess) =>
    fetch(`${server.url}/devices/-/:search`, {
      method: "POST",
      headers: KEY,
      body: '{"start":0,"size":3,"conditions":{}}',
    }),
  (server: ServerProcess, _: TestSession, i: number) =>
    fetch(`${server.url}/ping`, {
      method: "POST",
      headers: claim(`user${i}`, "phone"),
      body: '{"status":"0"}',
    }),
  (server: ServerProcess) => fetch(`${server.url}/presence?users=a,b,c`, { headers: claim("a") }),
  (server: ServerProcess) => fetch(`${server.url}/notifications?start=0&size=3`, { headers: KEY }),
  (server: ServerProcess) => fetch(`${server.url}/readyz`),
  (server: ServerProcess) => startOn(server),
];

test("commands work, also those that copy and migrate, and without a direct way if there is Redis", async () => {
  const redis = { DATABASE_DIRECT_URL: "", REDIS_URL: "redis://127.0.0.1:1" };
  const migrated = await runCommand(["migrate"], { ...env, ...redis });
  expect(migrated).toMatchObject({ code: 0, out: "the database is up to date\n" });
  const file = join(app.config.dataDir, "devices.jsonl");
  const lines = Array.from({ length: 500 }, (_, nth) =>
    JSON.stringify(line(`i${nth}`, { n: nth })),
  );
  await Bun.write(file, lines.join("\n"));
  const imported = await runCommand(["devices", "import", file, "--json"], { ...env, ...redis });
  expect(imported).toMatchObject({ code: 0, out: expect.stringContaining('"devices":500') });
  const body = JSON.stringify({ conditions: { key: "n", operator: "int_gte", value: "250" } });
  const estimate = `${other.url}/notifications/-/:estimate`;
  const found = await objectOf(fetch(estimate, { method: "POST", headers: KEY, body }));
  expect(found).toMatchObject({ result: { count: 250 } });
});

test("presence and changes of projects pass between processes", async () => {
  const ann = aUser("ann");
  using stream = await EventStream.open(other, watching(ann));
  await ping(one, { userid: ann, clientid: "phone", status: "2" });
  const { result, ms } = await timed(async () => await stream.presence());
  expect(result).toMatchObject({ userid: ann, status: "2", online: true });
  expect(ms).toBeLessThan(1000);
  expect(await snapshot(other, [ann], claim(ann))).toMatchObject({ [ann]: { online: true } });

  const { projectID } = Object(
    JSON.parse((await runCommand(["project", "create", "new", "--json"], env)).out),
  );
  await eventually(
    "it is known",
    async () => (await startOn(other, Number(projectID))).status === 200,
    5000,
  );
});

test("a campaign is sent", async () => {
  await using push = await PushServer.start(() => ({
    status: 200,
    body: '{"name":"projects/x/messages/1"}',
  }));
  await using tokens = new TokenServer();
  const sending = {
    ...env,
    FCM_CREDENTIALS: JSON.stringify({ type: "service_account", ...serviceAccount(tokens.url) }),
    FCM_BASE_URL: push.url,
  };
  await app.sql`
    insert into devices (external_id, push_token, send_platform, device_platform)
    select 'c' || nth, 'c' || nth, 1, 1 from generate_series(1, 3000) as nth`;
  const [row] = await app.sql<[{ id: number }]>`
    insert into notifications (title, body, conditions, scheduled_at, status, launch)
    values ('Hello', 'News.', '{}', now(), 5, 1) returning id::integer`;
  await using _ = await ServerProcess.start(sending, [MAIN, "work"]);
  await eventually(
    "it is sent",
    async () => {
      const [now] = await app.sql<[{ status: number; sent: number; all: number }]>`
        select status, sent_android::integer as sent, (select count(*) from devices where send_platform = 1)::integer as all
        from notifications where id = ${row.id}`;
      return now.status === 2 && now.sent === now.all;
    },
    30_000,
  );
});

test("a statement that takes too long is cancelled, and its connection used on", async () => {
  const sql = openDatabase(`${pooler.url}?pgbouncer=true`, { connections: 1, statementMs: 500 });
  const pid = async () => [...(await sql`select pg_backend_pid() as pid, ${"x"}::text as x`)];
  try {
    expect(await pid()).toHaveLength(1);
    const { result, ms } = await timed(async () => await failureCode(sql`select pg_sleep(${30})`));
    expect(result).toBe("57014");
    expect(ms).toBeLessThan(10_000);
    const inside = sql.begin(async (transaction) => await transaction`select pg_sleep(${30})`);
    expect(await failureCode(inside)).toBe("57014");
    expect(await pid()).toHaveLength(1);
  } finally {
    await sql.end({ timeout: 1 });
  }
});

describe("a pooler that dies", () => {
  test("makes a server not ready, which recovers with it", async () => {
    const session = await aSession(one);
    await pooler.kill();
    await becomes(503, "down");
    const pending = statusOf(append(one, session, aBatch({ salt: "meanwhile" })));
    await pooler.restart();
    await becomes(200, "ok");
    expect(await pending).toBe(200);
    expect(await statusOf(append(other, session, aBatch({ salt: "after" })))).toBe(200);
  });
});

async function becomes(code: number, postgres: string): Promise<void> {
  for (const server of [one, other])
    await eventually(
      `/readyz answers ${code}`,
      async () => {
        const answer = await fetch(`${server.url}/readyz`);
        return answer.status === code && Object(await answer.json()).postgres === postgres;
      },
      NOTICED_MS,
    );
}

async function startOn({ url }: { url: string }, projectID = app.projectID): Promise<Response> {
  return await fetch(`${url}/v1/ios/start`, {
    method: "POST",
    body: JSON.stringify({ projectID, trackerVersion: "1.0.14" }),
  });
}

async function aSession(server: ServerProcess): Promise<TestSession> {
  const session: TestSession = JSON.parse(await (await startOn(server)).text());
  return session;
}
