import { afterAll } from "bun:test";

import { needBrowser } from "./browser.ts";
import { needNginx, stopNginx } from "./nginx.ts";
import { stopTestPostgres, testPostgres } from "./postgres.ts";
import { stopRedisServers, testRedis } from "./redis-server.ts";
import { s3Server, stopS3Server } from "./s3-server.ts";
import { killServerProcesses } from "./server-process.ts";

// Starts the services that all files of a run share. Missing programs are installed before the
// first test, whose time limit an installation would exceed.
await Promise.all([testPostgres(), s3Server(), testRedis(), needNginx(), needBrowser()]);

// An S3 server that is killed gives gigabytes of memory back, which may take seconds.
afterAll(async () => {
  killServerProcesses();
  await Promise.all([stopTestPostgres(), stopS3Server(), stopRedisServers(), stopNginx()]);
}, 60_000);
