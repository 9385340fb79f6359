import { once } from "node:events";
import { createServer } from "node:net";
import { expect, test } from "bun:test";

import { openDatabase } from "../../../src/platform/database/database.ts";
import { isOutage } from "../../../src/platform/database/postgres-errors.ts";
import { startClosingServer } from "../../support/closing-server.ts";
import { eventually } from "../../support/eventually.ts";
import { failure } from "../../support/failure.ts";
import { freshDatabase } from "../../support/postgres.ts";
import { portOf } from "../../support/push-servers.ts";
import { TcpProxy } from "../../support/tcp-proxy.ts";

test("a transaction whose connection dies is refused, and the pool goes on", async () => {
  const url = await freshDatabase();
  const sql = openDatabase(url, { connections: 2 });
  const other = openDatabase(url, { connections: 1 });
  for (let round = 0; round < 10; round++) {
    const dying = failure(
      sql.begin(async (transaction) => {
        const [own] = await transaction<[{ pid: number }]>`select pg_backend_pid() as pid`;
        const ending = other`select pg_sleep(0.05), pg_terminate_backend(${own.pid})`;
        await Promise.all([transaction`select pg_sleep(5)`, ending]);
      }),
    );
    expect(await dying).toBeInstanceOf(Error);
    const [row] = await sql<[{ one: number }]>`select 1 as one`;
    expect(row.one).toBe(1);
  }
  await sql.end({ timeout: 1 });
  await other.end({ timeout: 1 });
});

test("a server that takes connections and closes them is an outage, and the pool goes on after it", async () => {
  const url = await freshDatabase();
  await using closing = await startClosingServer();
  await using proxy = await TcpProxy.open(`tcp://127.0.0.1:${closing.port}`);
  const sql = openDatabase(`${proxy.urlOf(url)}&sslmode=disable`, { connections: 2 });
  const startedMs = performance.now();
  const ask = async () => await failure(sql`select 1`);
  for (let round = 0; round < 3; round++)
    for (const error of await Promise.all([ask(), ask(), ask(), ask(), failure(sql.begin(ask))])) {
      expect(error).toMatchObject({ code: "CONNECTION_CLOSED" });
      expect(isOutage(error)).toBe(true);
    }
  // Ten times a second each of the two, at most.
  expect(closing.closed).toBeLessThan((performance.now() - startedMs) / 50 + 3);
  expect(closing.closed).toBe(15);

  proxy.redirect(url);
  const asleep = () => failure(sql`select pg_sleep(1)`);
  const both = Promise.all([asleep(), asleep()]);
  await eventually("both connections are made", () => proxy.connections === 2, 3000);
  expect(await both).toEqual([undefined, undefined]);
  expect([...(await sql`select 1 as one`)]).toEqual([{ one: 1 }]);

  // Nothing is waited for where the last statement has none to be sent to.
  proxy.redirect(`tcp://127.0.0.1:${closing.port}`);
  proxy.cut();
  await eventually("they are closed", async () => (await ask()) !== undefined);
  const last = ask();
  await sql.end();
  expect(isOutage(await last)).toBe(true);
});

test("a connection that is reset while the driver asks for types is an outage, and nothing else", async () => {
  const ready = Buffer.from([0x52, 0, 0, 0, 8, 0, 0, 0, 0, 0x5a, 0, 0, 0, 5, 0x49]);
  await using server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", () => {
      socket.write(ready);
      socket.once("data", () => socket.resetAndDestroy());
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const sql = openDatabase(`postgres://user@127.0.0.1:${portOf(server)}/db?sslmode=disable`, {
    connections: 1,
  });
  for (let round = 0; round < 2; round++) expect(isOutage(await failure(sql`select 1`))).toBe(true);
  await sql.end();
});
