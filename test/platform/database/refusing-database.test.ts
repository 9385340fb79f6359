import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync, rmSync } from "node:fs";

import { openDatabase } from "../../../src/platform/database/database.ts";
import { metric } from "../../support/answers.ts";
import { type TestSession, testEnv } from "../../support/app.ts";
import { aBatch } from "../../support/batches.ts";
import { runCommand } from "../../support/command.ts";
import { DebianPostgres, PASSWORD } from "../../support/debian-postgres.ts";
import { eventually, timed } from "../../support/eventually.ts";
import { failureCode } from "../../support/failure.ts";
import { RawConnection } from "../../support/raw-connection.ts";
import { uploadImage } from "../../support/images.ts";
import { append, statusOf } from "../../support/requests.ts";
import { ServerProcess } from "../../support/server-process.ts";
import { MAIN } from "../../support/program.ts";

setDefaultTimeout(60_000);

// Time until a change takes effect.
const NOTICED_MS = 5000;
const AT_ONCE_MS = 1500;
const TIMES = 6;
const CUT = /^(?:CONNECTION_CLOSED|ECONNRESET)$/;
const KEY = { "x-server-key": "key-of-the-tests" };

let postgres: DebianPostgres;
let env: Record<string, string>;
let server: ServerProcess;
let projectID: number;
let session: TestSession;
let sent = 0;

beforeAll(async () => {
  postgres = await DebianPostgres.start();
  postgres.query("create database app");
  const databaseUrl = postgres.url("?sslmode=disable").replace("/postgres?", "/app?");
  env = { ...(await testEnv("files", databaseUrl)), SERVER_KEYS: KEY["x-server-key"] };
  const created = await runCommand(["project", "create", "test", "--json"], env);
  projectID = Number(Object(JSON.parse(created.out)).projectID);
  server = await ServerProcess.start(env);
  session = JSON.parse(await (await startOn()).text());
  await expectTaken();
});

afterAll(async () => {
  await server.kill();
  await postgres[Symbol.asyncDispose]();
  rmSync(env["DATA_DIR"] ?? "", { recursive: true, force: true });
});

const OUTAGES: [what: string, begin: () => void, end: () => void][] = [
  [
    "read-only, as a demoted primary is",
    () => postgres.query("alter system set default_transaction_read_only = on", RELOAD),
    () => postgres.query("alter system reset default_transaction_read_only", RELOAD),
  ],
  [
    "of another password",
    // Terminate open connections: until a new one is needed, a changed password goes unnoticed.
    () => postgres.query("alter role floodgate password 'another'", TERMINATE),
    () => postgres.query(`alter role floodgate password '${PASSWORD}'`),
  ],
  [
    "without this database",
    () =>
      postgres.query(
        "alter database app allow_connections false",
        TERMINATE,
        "select pg_sleep(0.2)",
        "alter database app rename to elsewhere",
      ),
    () =>
      postgres.query(
        "alter database elsewhere rename to app",
        "alter database app allow_connections true",
      ),
  ],
  [
    "closed to this role",
    () => postgres.query("alter role floodgate nologin", TERMINATE),
    () => postgres.query("alter role floodgate login"),
  ],
  [
    "closed for work on it",
    () => postgres.query("alter database app allow_connections false", TERMINATE),
    () => postgres.query("alter database app allow_connections true"),
  ],
];
const RELOAD = "select pg_reload_conf()";
const TERMINATE =
  "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'floodgate'";

test.each(process.env["TEST_LONG"] === undefined ? OUTAGES.slice(0, 3) : OUTAGES)(
  "a server that is %s is an outage: everything is refused at once, and taken again after it",
  async (_, begin, end) => {
    const before = backends();
    begin();
    try {
      // The first answers may be about a connection that was closed.
      await lasts("503 down");
      for (let round = 0; round < 2; round++)
        for (const request of writes()) {
          const { result, ms } = await timed(async () => await statusOf(request()));
          expect(result).toBe(503);
          expect(ms).toBeLessThan(AT_ONCE_MS);
        }
      await eventually(
        "its connections are gone",
        () => before.isDisjointFrom(backends()),
        NOTICED_MS,
      );
    } finally {
      end();
    }
    await lasts("200 ok");
    await expectTaken();
    const stored = await fetch(`${server.url}/v1/sessions/${session.sessionID}`, { headers: KEY });
    expect(Object(await stored.json()).batches).toMatchObject({ count: sent });
  },
);

test("starting on such a server may be tried again, and names it without the password", async () => {
  postgres.query("alter role floodgate password 'another'");
  try {
    const { err, code } = await runCommand(["serve"], { ...env, LOG_LEVEL: "trace" });
    expect(code).toBe(75);
    expect(err).toContain('password authentication failed for user "floodgate"');
    const command = readFileSync(`/proc/${server.pid}/cmdline`, "utf8");
    for (const text of [PASSWORD, encodeURIComponent(PASSWORD)])
      expect(err + command).not.toContain(text);
  } finally {
    postgres.query(`alter role floodgate password '${PASSWORD}'`);
  }
});

test("a statement that comes after one which was cut off has an answer of its own", async () => {
  const sql = openDatabase(env["DATABASE_URL"] ?? "", { connections: 1 });
  try {
    const rows = failureCode(
      sql`select repeat('x', 10000), pg_sleep(0.02) from generate_series(1, 1000)`,
    );
    await eventually("it runs", isRunning);
    await Bun.sleep(100);
    postgres.query(TERMINATE);
    expect(await rows).toMatch(CUT);
    expect([...(await sql`select 1 as one`)]).toEqual([{ one: 1 }]);

    const sleep = failureCode(sql`select pg_sleep(30)`);
    await eventually("it runs", isRunning);
    postgres.query("alter role floodgate password 'another'", TERMINATE);
    expect(await sleep).toMatch(CUT);
    const late = Bun.sleep(5000).then(() => "no answer");
    expect(await Promise.race([failureCode(sql`select 1`), late])).toBe("28P01");
  } finally {
    postgres.query(`alter role floodgate password '${PASSWORD}'`);
    await sql.end({ timeout: 1 });
  }
});

test("an upload that it meets in the middle is refused when it goes on, and the process serves on", async () => {
  const held = async () => await metric(server, "floodgate_inflight_bytes");
  using raw = await RawConnection.open(server.url);
  const [start, end] = [
    `--b\r\ncontent-disposition: form-data; name="projectID"\r\n\r\n${projectID}\r\n` +
      `--b\r\ncontent-disposition: form-data; name="f"; filename="held"\r\n\r\n${"x".repeat(20_000)}`,
    // More than is read in one piece.
    `${"x".repeat(600_000)}\r\n--b--\r\n`,
  ];
  raw.head("POST /v1/ios/images", {
    authorization: `Bearer ${session.token}`,
    "content-type": "multipart/form-data; boundary=b",
    "content-length": start.length + end.length,
  });
  raw.write(start);
  try {
    await eventually("it is held back", async () => (await held()) >= 20_000);
    postgres.query("alter system set default_transaction_read_only = on", RELOAD);
    // It is noticed when something else is written.
    const device = JSON.stringify({ external_id: "d", push_token: "t" });
    await eventually("it is refused", async () => {
      const put = fetch(`${server.url}/devices`, { method: "PUT", headers: KEY, body: device });
      return (await statusOf(put)) === 503;
    });
    await eventually("what is held is given back", async () => (await held()) === 0);
    raw.write(end);
    expect((await raw.response()).status).toBe(503);
    expect(server.isRunning).toBe(true);
  } finally {
    postgres.query("alter system reset default_transaction_read_only", RELOAD);
  }
  await lasts("200 ok");
});

test("a campaign's worker waits for the end of it", async () => {
  const sql = openDatabase(env["DATABASE_URL"] ?? "", { connections: 1 });
  postgres.query("alter system set default_transaction_read_only = on", RELOAD);
  await using work = await ServerProcess.start(env, [MAIN, "work"]);
  await Bun.sleep(1000);
  expect(work.isRunning).toBe(true);
  postgres.query("alter system reset default_transaction_read_only", RELOAD);
  await eventually("it can be written", async () => {
    const [row] = await sql<[{ off: boolean }]>`
      select current_setting('transaction_read_only') = 'off' as off`;
    return row.off;
  });
  await sql`
    insert into notifications (title, body, conditions, scheduled_at, status, launch)
    values ('Hello', 'News.', '{}', now(), 5, 1)`;
  await eventually("it is sent", async () => {
    const [row] = await sql<[{ status: number }]>`select status from notifications`;
    return row.status === 2;
  });
  await sql.end();
});

function writes(): (() => Promise<Response>)[] {
  const { url } = server;
  const device = { external_id: "d", push_token: `${Math.random()}` };
  return [
    () => append(server, session, aBatch({ salt: `refused${Math.random()}` })),
    () => uploadImage({ url, projectID }, session, `image${Math.random()}`, aBatch()),
    () => fetch(`${url}/devices`, { method: "PUT", headers: KEY, body: JSON.stringify(device) }),
    startOn,
  ];
}

async function expectTaken(): Promise<void> {
  const batch = aBatch({ salt: `${sent++}` });
  // A connection that was already being made may report the outage a last time.
  const isTaken = async () => (await statusOf(append(server, session, batch))) === 200;
  await eventually("a batch is taken", isTaken, NOTICED_MS);
}

async function startOn(): Promise<Response> {
  const body = JSON.stringify({ projectID, trackerVersion: "1.0.14" });
  return await fetch(`${server.url}/v1/ios/start`, { method: "POST", body });
}

/**
 * Waits until readiness is the same several times in a row: connections in progress may still
 * report the previous state.
 */
async function lasts(wanted: string): Promise<void> {
  let times = 0;
  await eventually(
    `/readyz answers ${wanted}`,
    async () => {
      await Bun.sleep(50);
      times = (await readiness()) === wanted ? times + 1 : 0;
      return times === TIMES;
    },
    NOTICED_MS,
  );
}

async function readiness(): Promise<string> {
  const answer = await fetch(`${server.url}/readyz`);
  return `${answer.status} ${Object(await answer.json()).postgres}`;
}

/** Returns the PostgreSQL process ids of this server's connections. */
function backends(): Set<string> {
  const pids = postgres.query(
    "select pid from pg_stat_activity where application_name = 'floodgate' and datname = 'app'",
  );
  return new Set(pids.split("\n").filter((pid) => pid !== ""));
}

function isRunning(): boolean {
  return postgres.query("select 1 from pg_stat_activity where wait_event = 'PgSleep'") === "1";
}
