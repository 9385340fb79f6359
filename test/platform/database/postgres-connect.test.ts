import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";

import { openDatabase } from "../../../src/platform/database/database.ts";
import { UsageError } from "../../../src/platform/errors.ts";
import { startClosingServer } from "../../support/closing-server.ts";
import { DebianPostgres, PASSWORD } from "../../support/debian-postgres.ts";
import { eventually } from "../../support/eventually.ts";
import { failure as failureOf } from "../../support/failure.ts";
import { freePort } from "../../support/free-port.ts";
import { TcpProxy } from "../../support/tcp-proxy.ts";

const RELOAD = "select pg_reload_conf()";

type Session = { ssl: boolean; dn: string | null; user: string; port: number | null };

let server: DebianPostgres;
let own: string;
let other: string;

beforeAll(async () => {
  server = await DebianPostgres.start();
  [own, other] = [server.path("ca.crt"), server.path("other.crt")];
});

afterAll(async () => {
  await server[Symbol.asyncDispose]();
});

async function session(url: string): Promise<Session> {
  const sql = openDatabase(url, { connections: 1 });
  try {
    const [row] = await sql<[Session]>`
      select ssl, client_dn as dn, current_user as user, inet_server_port() as port
      from pg_stat_ssl where pid = pg_backend_pid()`;
    return row;
  } finally {
    await sql.end({ timeout: 1 });
  }
}

function hosts(ports: number[], query = ""): string {
  const list = ports.map((port) => `127.0.0.1:${port}`).join(",");
  return `postgres://floodgate:${encodeURIComponent(PASSWORD)}@${list}/postgres${query}`;
}

/** Returns the code and text of the connection error. */
async function failure(url: string): Promise<string> {
  try {
    await session(url);
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    const shown = `${"code" in error ? String(error.code) : error.name} ${error.message}`;
    expect(`${shown} ${error.stack} ${JSON.stringify(error)}`).not.toContain(PASSWORD);
    return shown;
  }
  return "";
}

describe("with a server that offers TLS", () => {
  test.each([
    ["disable", false],
    ["allow", false],
    ["prefer", true],
    ["require", true],
  ])("sslmode=%s", async (mode, ssl) => {
    expect(await session(server.url(`?sslmode=${mode}`))).toMatchObject({ ssl, user: "floodgate" });
  });

  test("without a mode it is used, as libpq does", async () => {
    expect(await session(server.url())).toMatchObject({ ssl: true });
  });

  test("Neon's address is understood", async () => {
    const url = server.url("?sslmode=require&channel_binding=require");
    expect(await session(url)).toMatchObject({ ssl: true });
  });

  test("verify-ca checks who signed, verify-full the name as well", async () => {
    const ca = `sslrootcert=${own}`;
    expect(await session(server.url(`?sslmode=verify-ca&${ca}`))).toMatchObject({ ssl: true });
    const named = server.url(`?sslmode=verify-full&${ca}`, "localhost");
    expect(await session(named)).toMatchObject({ ssl: true });
    const addressed = server.url(`?sslmode=verify-full&${ca}&hostaddr=127.0.0.1`, "localhost");
    expect(await session(addressed)).toMatchObject({ ssl: true });
    const wrongName = server.url(`?sslmode=verify-full&${ca}&hostaddr=127.0.0.1`, "db.example");
    expect(await failure(wrongName)).toMatch(/^CONNECT_TLS .*db\.example/);
    expect(await failure(server.url(`?sslmode=verify-full&${ca}`))).toMatch(/^CONNECT_TLS /);
  });

  test.each(["require", "verify-ca", "verify-full"])(
    "a certificate of another authority is refused by %s with an sslrootcert",
    async (mode) => {
      const url = server.url(`?sslmode=${mode}&sslrootcert=${other}`, "localhost");
      expect(await failure(url)).toMatch(/^CONNECT_TLS no TLS with localhost: .*certificate/);
    },
  );

  test("the system's authorities do not know it", async () => {
    for (const query of ["?sslrootcert=system", "?sslmode=verify-full"])
      expect(await failure(server.url(query, "localhost"))).toMatch(/^CONNECT_TLS /);
  });

  test("it is shown a certificate", async () => {
    const files = `sslcert=${server.path("client.crt")}&sslkey=${server.path("client.key")}`;
    const shown = await session(server.url(`?sslmode=require&${files}`));
    expect(shown).toMatchObject({ dn: "/CN=floodgate" });
  });

  test("a file that is not there is a mistake of the operator's", () => {
    const url = server.url("?sslmode=verify-ca&sslrootcert=/nowhere");
    expect(() => openDatabase(url)).toThrow(
      new UsageError("DATABASE_URL: the file of sslrootcert cannot be read"),
    );
  });
});

describe("what the server allows decides", () => {
  afterAll(async () => {
    await server.allow("local all all scram-sha-256", "host all all all scram-sha-256");
  });

  test("only with TLS", async () => {
    await server.allow("hostssl all all all scram-sha-256");
    for (const mode of ["allow", "prefer", "require"])
      expect(await session(server.url(`?sslmode=${mode}`))).toMatchObject({ ssl: true });
    expect(await failure(server.url("?sslmode=disable"))).toMatch(/^28000 .*no encryption/);
  });

  test("the connection that is made before it is known does not stay open", async () => {
    await using proxy = await TcpProxy.open(server.url());
    const url = new URL(proxy.urlOf(server.url("?sslmode=prefer")));
    url.password = "another";
    const sql = openDatabase(url.href, { connections: 1 });
    expect(await failureOf(sql`select 1`)).toMatchObject({ code: "28P01" });
    // By itself the server ends it after a minute.
    await eventually("none is open", () => proxy.connections === 0, 5000);
    await sql.end({ timeout: 1 });
  });

  test("only without", async () => {
    await server.allow("hostnossl all all all scram-sha-256");
    for (const mode of ["disable", "allow", "prefer"])
      expect(await session(server.url(`?sslmode=${mode}`))).toMatchObject({ ssl: false });
    expect(await failure(server.url("?sslmode=require"))).toMatch(/^28000 .*SSL encryption/);
  });
});

test("sockets of a folder, IPv6, and names of all kinds are found", async () => {
  const socket = { ssl: false, port: null };
  expect(await session(server.url(`?host=${server.folder}`))).toMatchObject(socket);
  expect(await session(server.url(`?sslmode=verify-full&host=${server.folder}`))).toMatchObject(
    socket,
  );
  expect(await session(server.url("", encodeURIComponent(server.folder)))).toMatchObject(socket);
  expect(await session(server.url("", "[::1]"))).toMatchObject({ port: server.port });
  const named = `?host=localhost&port=${server.port}&user=floodgate&dbname=postgres&password=${encodeURIComponent(PASSWORD)}`;
  expect(await session(`postgres://${named}`)).toMatchObject({ port: server.port });
  expect(await failure(server.url("?host=/nowhere"))).toMatch(/^CONNECT_SOCKET /);
});

test("variables of psql's do not count, and a passfile does", async () => {
  const mistaken = {
    PGHOST: "nowhere.invalid,there.invalid",
    PGPORT: "1",
    PGPASSWORD: "x",
    PGTARGETSESSIONATTRS: "any",
    PGSSL: "verify-full",
    PGOPTIONS: "-c nonsense=1",
  };
  const before = { ...process.env };
  Object.assign(process.env, mistaken);
  try {
    expect(await session(server.url())).toMatchObject({ port: server.port });
    const bare = `postgres://floodgate@127.0.0.1:${server.port}/postgres`;
    Object.assign(process.env, { PGPASSWORD: PASSWORD });
    expect(await failure(bare)).toMatch(/^28P01 /);
    const dead = `postgres://floodgate@127.0.0.1:${await freePort()}/postgres`;
    expect(await failure(dead)).toMatch(/^ECONNREFUSED/);
    const passfile = server.path("pgpass");
    writeFileSync(passfile, `*:*:*:floodgate:${PASSWORD.replaceAll(/[\\:]/g, "\\$&")}\n`);
    expect(await session(`${bare}?passfile=${passfile}`)).toMatchObject({ user: "floodgate" });
  } finally {
    for (const name of Object.keys(mistaken)) {
      if (before[name] === undefined) delete process.env[name];
      else process.env[name] = before[name];
    }
  }
});

test("options and search_path are the session's", async () => {
  for (const query of ["?options=-c%20search_path%3Dpg_catalog", "?search_path=pg_catalog"]) {
    const sql = openDatabase(server.url(query), { connections: 1 });
    const [row] = await sql<[{ path: string }]>`select current_setting('search_path') as path`;
    expect(row.path).toBe("pg_catalog");
    await sql.end();
  }
});

describe("of several hosts", () => {
  let standby: DebianPostgres;

  beforeAll(async () => {
    standby = await DebianPostgres.start();
    standby.query("alter system set default_transaction_read_only = on", RELOAD);
  });

  afterAll(async () => {
    await standby[Symbol.asyncDispose]();
  });

  test("the first that answers is taken", async () => {
    const dead = await freePort();
    expect(await session(hosts([dead, server.port]))).toMatchObject({ port: server.port });
    expect(await session(hosts([standby.port, server.port]))).toMatchObject({ port: standby.port });
    expect(await failure(hosts([dead, dead]))).toMatch(/^ECONNREFUSED/);
  });

  test("one that takes connections and closes them is passed over", async () => {
    await using closing = await startClosingServer();
    await using proxy = await TcpProxy.open(server.url());
    const { port } = new URL(proxy.urlOf(server.url()));
    const list = hosts([Number(port), standby.port], "?sslmode=disable");
    const sql = openDatabase(list, { connections: 1 });
    const find = async () => {
      const [row] = await sql<[{ port: number }]>`select inet_server_port() as port`;
      return row.port;
    };
    expect(await find()).toBe(server.port);
    proxy.redirect(`tcp://127.0.0.1:${closing.port}`);
    proxy.cut();
    const isFound = async () => (await find().catch(() => 0)) === standby.port;
    await eventually("the other one is found", isFound, 5000);
    await sql.end({ timeout: 1 });
    expect(await failure(hosts([closing.port], "?sslmode=disable"))).toMatch(/^CONNECTION_CLOSED/);
  });

  test("the first of the wanted kind is taken", async () => {
    const both = [standby.port, server.port];
    const writing = await session(hosts(both, "?target_session_attrs=read-write"));
    expect(writing).toMatchObject({ port: server.port });
    const reading = await session(hosts(both.toReversed(), "?target_session_attrs=read-only"));
    expect(reading).toMatchObject({ port: standby.port });
    // Neither server is in recovery.
    const primary = await session(hosts(both, "?target_session_attrs=primary"));
    expect(primary).toMatchObject({ port: standby.port });
    const preferred = await session(hosts(both, "?target_session_attrs=prefer-standby"));
    expect(preferred).toMatchObject({ port: standby.port });
    expect(await failure(hosts(both, "?target_session_attrs=standby"))).toMatch(/^CONNECT_ATTRS /);
  });

  test("another is found when the one that is connected to is demoted", async () => {
    const sql = openDatabase(
      hosts([standby.port, server.port], "?target_session_attrs=read-write"),
    );
    const port = async () => {
      const [row] = await sql<[{ port: number }]>`
        with made as (select txid_current()) select inet_server_port() as port from made`;
      return row.port;
    };
    const demote = ["alter system set default_transaction_read_only = on", RELOAD];
    const promote = ["alter system reset default_transaction_read_only", RELOAD];
    try {
      expect(await port()).toBe(server.port);
      server.query(...demote);
      standby.query(...promote);
      const write = async () =>
        await sql`create table if not exists moved (id integer)`.then(
          () => true,
          () => false,
        );
      await eventually("it writes elsewhere", write, 5000);
      expect(await port()).toBe(standby.port);
    } finally {
      await sql.end({ timeout: 1 });
      server.query(...promote);
      standby.query(...demote);
    }
  });

  test("another is found when the one dies, and when its role goes to another", async () => {
    const sql = openDatabase(
      hosts([standby.port, server.port], "?target_session_attrs=read-write"),
    );
    const port = async () => {
      const [row] = await sql<[{ port: number }]>`select inet_server_port() as port`;
      return row.port;
    };
    try {
      expect(await port()).toBe(server.port);
      await server.stop();
      standby.query("alter system reset default_transaction_read_only", RELOAD);
      const isFound = async () => (await port().catch(() => 0)) === standby.port;
      await eventually("the other one is found", isFound, 5000);
    } finally {
      await sql.end({ timeout: 1 });
      await server.restart();
    }
  });
});
