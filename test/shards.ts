/**
 * Runs the tests in shards, several side by side, prints their output as it comes, and at the end
 * again what belongs to each failed test. Arguments go to `bun test`.
 */
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";

import { needBrowser } from "./support/browser.ts";
import { bundleProgram } from "./support/program.ts";
import { needNginx } from "./support/nginx.ts";
import { needRedis } from "./support/redis-server.ts";
import { beginRun } from "./support/run-folder.ts";
import { s3Server } from "./support/s3-server.ts";

// The cores of a small machine. More processes only make each other late.
const PROCESSES = 2;
// More than processes, so that one that is done early goes on with the next.
const SHARDS = 6;
const CONTEXT_LINES = 40;
// Durations of the files, by which the shards are made equal: `bun run test:timings` measures them.
const TIMINGS = join(import.meta.dir, "timings.json");

// Files that take longest, which only `bun run test:long` runs.
const LONG = [
  "test/archives/image-archiver",
  "test/archives/merge/live",
  "test/archives/merge/memory",
  "test/archives/recovery/overlap",
  "test/archives/recovery/reindex-store",
  "test/campaigns/kill",
  "test/campaigns/stalls",
  "test/cli/export-replay-command",
  "test/cli/verify-command",
  "test/deploy/site-proxies",
  "test/durability/concurrency",
  "test/durability/postgres",
  "test/durability/restarts",
  "test/ingest/web-tracker-failures",
  "test/ingest/web-tracker-privacy",
  "test/log/verify/take-out",
  "test/platform/database/pooler",
  "test/platform/database/refusing-database",
  "test/platform/http/event-loop",
  "test/processes/frozen",
  "test/processes/opening",
  "test/processes/supervisor",
  "test/replay/large",
  "test/updates/kill",
].map((name) => `${name}.test.ts`);
const FILES = [...new Bun.Glob("test/**/*.test.ts").scanSync()]
  .filter((path) => !LONG.includes(path))
  .map((path) => `./${path}`);

const endRun = beginRun();
// An installation takes longer than a test may, and the S3 server is for all shards.
await bundleProgram();
if (Bun.argv.length === 2) await Promise.all([s3Server(), needRedis(), needNginx(), needBrowser()]);
const failures: string[] = [];
const codes: number[] = [];
let begun = 0;
const runShards = async () => {
  while (begun < SHARDS) codes.push(await runShard(++begun));
};
await Promise.all(Array.from({ length: PROCESSES }, runShards));
for (const failure of failures) process.stderr.write(`\n${failure}\n`);
await endRun();
process.exitCode = codes.find((code) => code !== 0) ?? 0;

async function runShard(nth: number): Promise<number> {
  const child = Bun.spawn(
    [
      process.execPath,
      "test",
      "--timeout=60000",
      `--shard=${nth}/${SHARDS}`,
      `--timings=${TIMINGS}`,
      ...(Bun.argv.length > 2 ? Bun.argv.slice(2) : FILES),
    ],
    { env: process.env, stdout: "inherit", stderr: "pipe" },
  );
  // The lines since the last test ended.
  let recent: string[] = [];
  for await (const line of createInterface({ input: Readable.fromWeb(child.stderr) })) {
    process.stderr.write(`${line}\n`);
    recent.push(line);
    if (line.startsWith("(fail)")) failures.push(recent.slice(-CONTEXT_LINES).join("\n"));
    if (/^\((?:pass|fail|skip|todo)\)/.test(line)) recent = [];
  }
  return await child.exited;
}
