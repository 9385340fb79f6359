import { tmpdir } from "node:os";

import { test } from "bun:test";

import { testEnv } from "./app.ts";
import { Nginx } from "./nginx.ts";
import { freshDatabase } from "./postgres.ts";
import { redisEnv } from "./redis-server.ts";
import { ServerProcess } from "./server-process.ts";

// A run of its own for test/run.test.ts, which kills it.
test("all services run", async () => {
  const env = { ...(await testEnv("files", await freshDatabase())), ...(await redisEnv()) };
  await Nginx.plain((await ServerProcess.start(env)).url);
  process.stdout.write(`${tmpdir()}\n`);
  await Bun.sleep(60_000);
}, 120_000);
