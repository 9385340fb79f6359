import { afterAll } from "bun:test";

import { stopTestPostgres, testPostgres } from "./postgres.ts";
import { s3Server, stopS3Server } from "./s3-server.ts";
import { killServerProcesses } from "./server-process.ts";

// The services are shared by all files of a run. They come up before the first test, whose time limit a first installation would break.
await Promise.all([testPostgres(), s3Server()]);

afterAll(async () => {
  killServerProcesses();
  await Promise.all([stopTestPostgres(), stopS3Server()]);
});
