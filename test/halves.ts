/**
 * Runs both halves of the tests side by side, prints their output as it comes, and at the end again
 * what belongs to each failed test.
 */
import { createInterface } from "node:readline";
import { Readable } from "node:stream";

const CONTEXT_LINES = 40;

const failures: string[] = [];
const codes = await Promise.all([runHalf(1), runHalf(2)]);
for (const failure of failures) process.stderr.write(`\n${failure}\n`);
process.exitCode = codes.find((code) => code !== 0) ?? 0;

async function runHalf(nth: number): Promise<number> {
  const child = Bun.spawn(
    [process.execPath, "test", "--timeout", "30000", `--shard=${nth}/2`, ...Bun.argv.slice(2)],
    { stdout: "inherit", stderr: "pipe" },
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
