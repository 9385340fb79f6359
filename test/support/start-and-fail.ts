import { readConfig } from "../../src/platform/config/config.ts";
import { startServer } from "../../src/processes/server.ts";

/* Starts a server that cannot start, and ends only when nothing keeps the process alive any more. */
const config = readConfig();
await startServer(config, config.databaseUrl ?? "").then(
  () => process.exit(3),
  () => undefined,
);
