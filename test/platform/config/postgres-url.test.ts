import { describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert, pre, property, string } from "fast-check";

import { readConfig } from "../../../src/platform/config/config.ts";
import { UsageError } from "../../../src/platform/errors.ts";
import { passwordFor } from "../../../src/platform/database/postgres-passfile.ts";
import { parsePostgresUrl } from "../../../src/platform/config/postgres-url.ts";

const BASE = { user: "u", password: "p", database: "d" };
const LOCAL = { name: "localhost", port: 5432, to: { host: "localhost", port: 5432 } };

describe("an address is read as libpq reads it", () => {
  const cases: [string, object][] = [
    ["postgres://u:p@h/d", { ...BASE, hosts: [to("h")] }],
    ["postgresql://u:p@h:6543/d\n", { ...BASE, hosts: [to("h", 6543)] }],
    ["postgres://u:p@[::1]:6543/d", { ...BASE, hosts: [to("::1", 6543)] }],
    ["postgres://u:p@[::1]/d", { ...BASE, hosts: [to("::1")] }],
    ["postgres://u:p@a,b:2,[::3]:4/d", { hosts: [to("a"), to("b", 2), to("::3", 4)] }],
    ["postgres://u:p@%2Frun%2Fpg/d", { ...BASE, hosts: [socket()] }],
    ["postgres://u:p@/d?host=/run/pg", { ...BASE, hosts: [socket()] }],
    ["postgres:///d?host=/run/pg&port=7&user=u&password=p", { ...BASE, hosts: [socket(7)] }],
    ["postgres://?host=h&port=7&user=u&password=p&dbname=d", { ...BASE, hosts: [to("h", 7)] }],
    ["postgres://u:p@x/d?host=a,b&port=1,2", { hosts: [to("a", 1), to("b", 2)] }],
    ["postgres://u:p@a,b/d?port=7", { hosts: [to("a", 7), to("b", 7)] }],
    [
      "postgres://u:p@h/d?hostaddr=10.0.0.1",
      { hosts: [{ name: "h", port: 5432, to: { host: "10.0.0.1", port: 5432 } }] },
    ],
    ["postgres://u:p@/d?hostaddr=10.0.0.1", { hosts: [to("10.0.0.1")] }],
    ["postgres://u:p@/d", { ...BASE, hosts: [LOCAL] }],
    ["postgres://u@h", { user: "u", password: undefined, database: "u" }],
    [
      "postgres://u%40corp:p%40%2F%23%3F%25%3A%20x@h/d%2Fe",
      { user: "u@corp", password: "p@/#?%: x", database: "d/e" },
    ],
    ["postgres://u:p:q,r@h/d", { password: "p:q,r", hosts: [to("h")] }],
    [
      "postgres://h/d?user=me@corp&application_name=a@b",
      { user: "me@corp", session: { application_name: "a@b" } },
    ],
    ["postgres://u:p@h/d?connect_timeout=0", { connectTimeoutS: Number.POSITIVE_INFINITY }],
    ["postgres://u:p@h/d?connect_timeout=1", { connectTimeoutS: 2 }],
    [
      "postgres://u:p@h/d?options=-c%20search_path%3Dx",
      { session: { options: "-c search_path=x" } },
    ],
    [
      "postgres://u:p@h/d?options=-c search_path=x".replace(" ", "%20"),
      { session: { options: "-c search_path=x" } },
    ],
    ["postgres://u:p@h/d?search_path=x", { session: { search_path: "x" } }],
    ["postgres://u:p@h/d?pgbouncer=true", { isPooled: true, dropped: [] }],
    ["postgres://u:p@h/d?target_session_attrs=read-write", { sessionAttrs: "read-write" }],
    [
      "postgres://u:p@h/d",
      { tls: tls("prefer"), sessionAttrs: "any", isPooled: false, session: {} },
    ],
    ["postgres://u:p@h/d?ssl=true", { tls: tls("require") }],
    [
      "postgres://u:p@h/d?sslmode=require&sslrootcert=/ca",
      { tls: { ...tls("verify-ca"), rootCert: "/ca" } },
    ],
    [
      "postgres://u:p@h/d?sslrootcert=system",
      { tls: { ...tls("verify-full"), rootCert: "system" } },
    ],
    [
      "postgres://u:p@ep-x.neon.tech/d?sslmode=require&channel_binding=require",
      { tls: tls("require"), dropped: ["channel_binding"] },
    ],
    [
      "postgres://u:p@h/d?schema=s&connection_limit=1&pool_timeout=0&supa=base-pooler.x&statement_cache_size=0&sslaccept=strict&made_up=1",
      {
        session: {},
        dropped: [
          "schema",
          "connection_limit",
          "pool_timeout",
          "supa",
          "statement_cache_size",
          "sslaccept",
          "made_up",
        ],
      },
    ],
  ];
  test.each(cases)("%s", (url, expected) => {
    expect(parsePostgresUrl(url)).toMatchObject(expected);
  });
});

function to(host: string, port = 5432) {
  return { name: host, port, to: { host, port } };
}

function socket(port = 5432) {
  return { name: "/run/pg", port, to: { path: `/run/pg/.s.PGSQL.${port}` } };
}

function tls(mode: string) {
  return { mode, rootCert: undefined, cert: undefined, key: undefined, direct: false };
}

describe("a mistake is told without a piece of what is secret", () => {
  const cases: [string, RegExp][] = [
    ["mysql://u:secret@h/d", /postgres:\/\//],
    ["host=h user=u password=secret", /postgres:\/\//],
    ["postgres://u:sec ret@h/d", /%40|percent-encoded/],
    ["postgres://u:sec@ret@h/d", /more than one "@"/],
    ["postgres://u:sec#ret@h/d", /"#"/],
    ["postgres://u:sec/ret@h/d", /percent-encoded/],
    ["postgres://u:12/ret@h/d", /percent-encoded/],
    ["postgres://u:sec?ret@h/d", /percent-encoded/],
    ["postgres://u:12?ret@h/d", /%3F/],
    ["postgres://u:1?secret=ret@h/d", /%3F/],
    ["postgres://u:12?secret@h:5432/d?sslmode=disable", /%3F/],
    ["postgres://u:sec%ret@h/d", /%25/],
    ["postgres://u:secret%@h/d", /%25/],
    ["postgres://u:secret%00@h/d", /%25/],
    ["postgres://u:secret@h:0/d", /port/],
    ["postgres://u:secret@h:65536/d", /port/],
    ["postgres://u:secret@h:x/d", /port/],
    ["postgres://u:secret@::1/d", /brackets/],
    ["postgres://u:secret@h/d?port=x", /port/],
    ["postgres://u:secret@a,b/d?port=1,2,3", /ports/],
    ["postgres://u:secret@a,b/d?hostaddr=10.0.0.1", /hostaddr/],
    ["postgres://u:secret@h/d?sslmode=no-verify", /sslmode .*verify-full/],
    ["postgres://u:secret@h/d?sslmode=verify-ca", /sslrootcert/],
    ["postgres://u:secret@h/d?sslmode=require&sslrootcert=system", /verify-full/],
    ["postgres://u:secret@h/d?sslcert=/c", /sslkey/],
    ["postgres://u:secret@h/d?target_session_attrs=master", /primary/],
    ["postgres://u:secret@h/d?connect_timeout=5s", /connect_timeout/],
    ["postgres://u:secret@h/d?pgbouncer=yes", /pgbouncer/],
    ["postgres://u:secret@h/d?sslmode", /sslmode|"="/],
  ];
  test.each(cases)("%s", (url, text) => {
    const message = messageOf(url);
    expect(message).toMatch(text);
    expect(message).not.toMatch(/secret|\bsec\b|\bret\b|\b12\b/);
    expect(message).toStartWith("bad configuration: DATABASE_URL ");
  });

  test("whatever stands in the password", () => {
    assert(
      property(string({ minLength: 6, unit: "grapheme" }), (secret) => {
        const message = messageOf(`postgres://u:${secret}@h:x/d`);
        expect(message).not.toContain(secret);
      }),
    );
  });
});

test("every password can be written percent-encoded", () => {
  assert(
    property(string({ unit: "grapheme" }), (secret) => {
      pre(!secret.includes("\0") && secret.isWellFormed());
      const url = `postgres://u:${encodeURIComponent(secret)}@h/d`;
      expect(parsePostgresUrl(url).password ?? "").toBe(secret);
    }),
  );
});

test("what has no effect is named in one warning, and not handed on", () => {
  const { databaseUrl, warnings } = readConfig({
    DATABASE_URL: "postgres://u:p@h/d?schema=s&sslmode=disable&supa=x&%F0%9F%98%80=1",
    TOKEN_SECRET: "s",
  });
  expect(warnings).toEqual([
    "DATABASE_URL has parameters without effect here: schema, supa, one with an odd name",
  ]);
  expect(databaseUrl).toBe("postgres://u:p@h/d?sslmode=disable");
});

describe("a pooler of transactions", () => {
  const url = "postgres://u:p@h/d";
  const secret = { TOKEN_SECRET: "s" };
  const direct = { DATABASE_DIRECT_URL: "postgres://u:p@direct/d" };

  test("is what the variable or the URL says, and nothing else is taken for one", () => {
    const pooled = `${url}?pgbouncer=true`;
    const named = { ...secret, ...direct, DATABASE_URL: url, DATABASE_POOLER: "transaction" };
    expect(readConfig(named).databaseUrl).toBe(pooled);
    expect(readConfig({ ...secret, ...direct, DATABASE_URL: pooled }).databaseUrl).toBe(pooled);
    const plain = "postgres://u:p@pgbouncer:6432/d";
    expect(readConfig({ ...secret, DATABASE_URL: plain }).databaseUrl).toBe(plain);
  });

  test.each([
    { DATABASE_POOLER: "transaction", DATABASE_URL: url },
    { DATABASE_URL: `${url}?pgbouncer=true` },
  ])("needs another way for what listens: %j", (env) => {
    expect(() => readConfig({ ...secret, ...env })).toThrow(
      /DATABASE_DIRECT_URL or REDIS_URL is required/,
    );
    readConfig({ ...secret, ...env, ...direct });
    readConfig({ ...secret, ...env, REDIS_URL: "redis://r" });
  });

  test("cannot be the direct way, nor stand before nothing", () => {
    const pooled = { DATABASE_DIRECT_URL: `${url}?pgbouncer=true` };
    expect(() => readConfig({ ...secret, DATABASE_URL: url, ...pooled })).toThrow(/DIRECT_URL/);
    expect(() => readConfig(direct)).toThrow(/needs DATABASE_URL/);
    expect(() => readConfig({ DATABASE_POOLER: "transaction" })).toThrow(/needs DATABASE_URL/);
    const session = { ...secret, DATABASE_URL: url, DATABASE_POOLER: "session" };
    expect(() => readConfig(session)).toThrow(/DATABASE_POOLER must be one of transaction/);
  });
});

test("a passfile gives the password of the first line that fits", () => {
  const folder = mkdtempSync(join(tmpdir(), "floodgate-passfile-"));
  try {
    const path = join(folder, "pgpass");
    writeFileSync(path, "# mine\nother:*:*:*:no\nh:5432:d:u:a\\:b\\\\c\n*:*:*:*:last:one\n");
    const of = (text: string) => {
      const url = parsePostgresUrl(`${text}?passfile=${path}`);
      return passwordFor(url, url.hosts[0]);
    };
    expect(of("postgres://u@h/d")).toBe("a:b\\c");
    expect(of("postgres://u@h:1/d")).toBe("last:one");
    expect(of("postgres://u:own@h/d")).toBe("own");
  } finally {
    rmSync(folder, { recursive: true });
  }
});

function messageOf(url: string): string {
  try {
    readConfig({ DATABASE_URL: url, TOKEN_SECRET: "s" });
  } catch (error) {
    if (error instanceof UsageError) return error.message;
  }
  throw new Error("it was taken");
}
