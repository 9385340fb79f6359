import { beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { pino } from "pino";

import { UsageError } from "../../src/platform/errors.ts";
import { startServer } from "../../src/processes/server.ts";
import { ApiKeys } from "../../src/api-keys/service.ts";
import { TestApp } from "../support/app.ts";
import { eventually, timed } from "../support/eventually.ts";
import { failure } from "../support/failure.ts";
import { serverBeside } from "../support/requests.ts";
import { TcpProxy } from "../support/tcp-proxy.ts";
import { plainOf } from "../support/updates.ts";

setDefaultTimeout(60_000);

const REVOKED_MS_MAX = 5000;

const app = TestApp.forTests();
let apiKeys: ApiKeys;

beforeAll(async () => {
  apiKeys = new ApiKeys({ sql: app.sql, log: pino({ level: "silent" }) });
});

/** How often the database has read the signatures, as of a second ago. */
async function read(): Promise<number> {
  const [row] = await app.sql<[{ reads: number }]>`
    select seq_scan::integer + coalesce(idx_scan, 0)::integer as reads from pg_stat_user_tables
    where relname = 'signatures' and schemaname = current_schema()`;
  return row.reads;
}

async function statusAt({ url }: { url: string }, signature: string): Promise<number> {
  const answer = await fetch(`${url}/api/v1/users`, { headers: { signature } });
  await answer.bytes();
  return answer.status;
}

describe("a signature", () => {
  test("is valid on every server as soon as it is made, and on none soon after it is revoked", async () => {
    await using beside = await serverBeside(app);
    const servers = [app, beside];
    const { id, signature } = await apiKeys.create({ role: "service" });
    const { signature: other } = await apiKeys.create({ role: "service" });
    for (const server of servers) expect(await statusAt(server, signature)).toBe(200);
    await apiKeys.revoke(id);
    const { ms } = await timed(async () => {
      for (const server of servers)
        await eventually("it is refused", async () => (await statusAt(server, signature)) === 401);
    });
    expect(ms).toBeLessThan(REVOKED_MS_MAX);
    for (const server of servers) expect(await statusAt(server, other)).toBe(200);
  });

  test("has 32 random bytes, and an id and a role of its own", async () => {
    const made = [
      await apiKeys.create({ role: "client" }),
      await apiKeys.create({ role: "service" }),
    ];
    for (const { signature } of made) expect(signature).toMatch(/^[\w-]{43}$/);
    expect(made.map(({ role }) => role)).toEqual(["client", "service"]);
    expect(new Set(made.map(({ id }) => id)).size).toBe(2);
    const listed = (await apiKeys.list()).filter(({ id }) => made.some((one) => one.id === id));
    expect(listed).toEqual(
      made.map(({ id, role }) => ({ id, role, createdAt: expect.any(Date), revokedAt: null })),
    );
  });

  test("is nowhere in the database but as a digest", async () => {
    const { signature } = await apiKeys.create({ role: "service" });
    expect(await statusAt(app, signature)).toBe(200);
    const tables = await app.sql<{ name: string }[]>`
      select table_name as name from information_schema.tables where table_schema = current_schema()`;
    expect(tables.length).toBeGreaterThan(5);
    let texts = "";
    for (const { name } of tables) {
      const rows = await app.sql<
        { text: string }[]
      >`select t::text as text from ${app.sql(name)} t`;
      texts += rows.map(({ text }) => text).join("\n");
    }
    const decoded = Buffer.from(signature, "base64url").toString("hex");
    const digest = new Bun.CryptoHasher("sha256").update(signature).digest("hex");
    for (const secret of [signature, Buffer.from(signature).toString("hex"), decoded])
      expect(texts).not.toContain(secret);
    expect(texts).toContain(digest);
  });

  test("that was in use elsewhere is kept, once, and not after it was revoked", async () => {
    const signature = 'an,"old"~signature!';
    const { id } = await apiKeys.create({ role: "service", signature });
    expect(await statusAt(app, signature)).toBe(200);
    const again = async () => await apiKeys.create({ role: "client", signature });
    const refusal = "that signature exists; a revoked one cannot be used again";
    expect(await failure(again())).toEqual(new UsageError(refusal));
    await apiKeys.revoke(id);
    expect(await failure(again())).toEqual(new UsageError(refusal));
  });

  test.each([
    "",
    "x".repeat(15),
    "x".repeat(257),
    "with a space in it",
    "tab\tin the text",
    "é".repeat(16),
  ])("cannot be %p", async (signature) => {
    expect(await failure(apiKeys.create({ role: "client", signature }))).toEqual(
      new UsageError("a signature has 16 to 256 visible ASCII characters"),
    );
  });

  test.each([16, 256])("may have %d characters", async (length) => {
    const signature = "~".repeat(length);
    await apiKeys.create({ role: "service", signature });
    expect(await statusAt(app, signature)).toBe(200);
  });

  test("keeps the time at which it was first revoked", async () => {
    const { id } = await apiKeys.create({ role: "client" });
    const first = await apiKeys.revoke(id);
    expect(first.revokedAt).toBeInstanceOf(Date);
    expect(await apiKeys.revoke(id)).toEqual(first);
    expect(await failure(apiKeys.revoke(2 ** 31 - 1))).toEqual(
      new UsageError("there is no signature 2147483647"),
    );
  });

  test("of an empty text never matches, even if there is such a row", async () => {
    const digest = new Bun.CryptoHasher("sha256").update("").digest();
    await app.sql`insert into signatures (role, digest) values ('service', ${digest})`;
    await Bun.sleep(2500);
    expect(await statusAt(app, "")).toBe(401);
    expect((await app.fetch("/api/v1/users")).status).toBe(401);
  });

  test("is in no line of the log, valid or not", async () => {
    const lines: string[] = [];
    const log = pino({ level: "trace" }, { write: (line: string) => void lines.push(line) });
    const server = await startServer(app.config, app.databaseUrl, { log });
    const { signature } = await apiKeys.create({ role: "client" });
    const unknown = "an-unknown-signature";
    await app.sql`alter table users rename to users_away`;
    for (const text of [signature, unknown])
      for (const method of ["GET", "POST", "PUT"])
        await fetch(`${server.url}api/v1/users`, {
          method,
          headers: { signature: text },
          ...(method !== "GET" && { body: "{}" }),
        });
    await app.sql`alter table users_away rename to users`;
    await server[Symbol.asyncDispose]();
    expect(lines.join("")).toContain("request failed");
    for (const text of [signature, unknown]) expect(lines.join("")).not.toContain(text);
  });
});

describe("while the database is away", () => {
  test("an unknown signature is a 503 and no 401, and a known one is not asked again", async () => {
    await using proxy = await TcpProxy.open(app.databaseUrl);
    const { signature } = await apiKeys.create({ role: "client" });
    await using server = await serverBeside(app, { databaseUrl: proxy.urlOf(app.databaseUrl) });
    await proxy.refuse();
    const list = async (text: string) =>
      await fetch(`${server.url}/api/v1/users`, { headers: { signature: text } });
    const unknown = await list("an-unknown-signature");
    expect(unknown.headers.get("retry-after")).toBe("2");
    expect(await plainOf(unknown)).toEqual([503, "the database is away, send it again\n"]);
    expect(await plainOf(list(signature))).toEqual([403, "forbidden\n"]);
    await proxy.restore();
    const isKnown = async () => (await list("an-unknown-signature")).status === 401;
    await eventually("the database is asked again", isKnown);
  });

  test("many unknown signatures are few readings", async () => {
    const before = await read();
    const { ms } = await timed(async () => {
      for (let round = 0; round < 5; round++)
        await Promise.all(
          Array.from({ length: 40 }, async (_, i) => {
            const answer = app.fetch("/api/v1/users", {
              headers: { signature: `guess-of-a-signature-${round}-${i}` },
            });
            expect(await plainOf(answer)).toEqual([401, "record not found\n"]);
          }),
        );
    });
    await Bun.sleep(1500);
    const reads = (await read()) - before;
    expect(reads).toBeGreaterThan(0);
    expect(reads).toBeLessThan(10 + (ms / 1000) * 11);
  });
});
