import { expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { AuthServer } from "../support/auth-server.ts";
import { freePort } from "../support/free-port.ts";
import { Load } from "../support/load.ts";
import { Nginx } from "../support/nginx.ts";
import { ServerProcess, envOf } from "../support/server-process.ts";

const RESTARTS = process.env["TEST_LONG"] === undefined ? 4 : 20;
const SENDERS = 30;

test(`of two servers behind nginx one after the other restarts ${RESTARTS} times, and no request fails`, async () => {
  await using app = await TestApp.start();
  const envs = [await freePort(), await freePort()].map((port) => ({
    ...envOf(app),
    PORT: String(port),
  }));
  const servers = await Promise.all(envs.map((env) => ServerProcess.start(env)));
  using auth = new AuthServer();
  await using nginx = await Nginx.deployed({ upstreams: servers, auth });
  const sessions = await Promise.all(Array.from({ length: SENDERS }, () => app.aSession()));
  const load = new Load(nginx, sessions);
  const sending = load.run();
  try {
    for (let restart = 0; restart < RESTARTS; restart++) {
      const nth = restart % servers.length;
      await Bun.sleep(200 + Math.random() * 300);
      servers[nth]?.signal("SIGTERM");
      expect(await servers[nth]?.exited).toBe(0);
      servers[nth] = await ServerProcess.start(envs[nth] ?? {});
    }
    load.stop();
    await sending;
  } finally {
    load.stop();
    for (const server of servers) await server[Symbol.asyncDispose]();
  }
  process.stdout.write(`${RESTARTS} restarts, ${load.acknowledged} batches\n`);
  const log = (await nginx.log()).split("\n").filter((line) => !line.includes("(111: "));
  expect(load.failures, log.join("\n")).toEqual([]);
  const rows = await app.sql`select 1 from batches`;
  expect(rows.length).toBe(load.acknowledged);
}, 180_000);
