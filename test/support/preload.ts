import { afterAll, setDefaultTimeout } from "bun:test";

import { beginRun } from "./run-folder.ts";

// Holds for the first file of a run: `bun run test` gives `--timeout` for all.
setDefaultTimeout(60_000);

// Services start when a test first asks for them. An S3 server that is killed gives gigabytes of
// memory back, which may take seconds.
afterAll(beginRun(), 60_000);
