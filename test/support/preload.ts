import { afterAll } from "bun:test";

import { stopTestPostgres } from "./postgres.ts";
import { stopS3Server } from "./s3-server.ts";
import { killServerProcesses } from "./server-process.ts";

// The services are shared by all files of a run, and started by the first test that needs them.
afterAll(async () => {
  killServerProcesses();
  await Promise.all([stopTestPostgres(), stopS3Server()]);
});
