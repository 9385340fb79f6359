import { existsSync } from "node:fs";
import { readdir, readFile, rm } from "node:fs/promises";

import { releaseS3Server } from "./s3-server.ts";

const STEP_MS = 20;
const GRACE_MS = 3000;

if (import.meta.main) {
  const [folder = "", pid = ""] = Bun.argv.slice(2);
  await endRun(folder, Number(pid));
}

/** Ends all that runs in `folder`, and gives up the S3 server of `pid`. */
export async function endRun(folder: string, pid: number): Promise<void> {
  await endIn(folder);
  await releaseS3Server(pid);
}

/** Kills the processes whose TMPDIR is in `folder`, and removes it. */
export async function endIn(folder: string): Promise<void> {
  for (let ms = 0; ; ms += STEP_MS) {
    const left = await processesOf(folder);
    if (left.length === 0) break;
    for (const one of left) end(one, ms < GRACE_MS);
    await Bun.sleep(STEP_MS);
  }
  // File systems that are mounted there stay.
  await rm(folder, { recursive: true, force: true, maxRetries: 10 }).catch(() => {});
}

type Process = { pid: number; isPostgres: boolean };

/** Lists processes by their environment, which also shows those whose parent has ended. */
async function processesOf(folder: string): Promise<Process[]> {
  const mark = `TMPDIR=${folder}`;
  if (!existsSync("/proc/self/environ")) return listed(mark);
  const found = (await readdir("/proc")).map(async (name) => {
    const environment = await readFile(`/proc/${name}/environ`, "utf8").catch(() => "");
    if (!environment.split("\0").some((entry) => entry.startsWith(mark))) return [];
    const command = await readFile(`/proc/${name}/comm`, "utf8").catch(() => "");
    return [{ pid: Number(name), isPostgres: command.startsWith("postgres") }];
  });
  return (await Promise.all(found)).flat();
}

/** As macOS lists them. */
function listed(mark: string): Process[] {
  const lines = Bun.spawnSync(["ps", "-axEww", "-o", "pid=,command="])
    .stdout.toString()
    .split("\n");
  return lines
    .filter((line) => line.includes(mark))
    .map((line) => ({ pid: Number.parseInt(line, 10), isPostgres: /bin\/postgres /.test(line) }));
}

function end({ pid, isPostgres }: Process, isGentle: boolean): void {
  try {
    // At SIGQUIT PostgreSQL ends at once, but gives its shared memory back.
    process.kill(pid, isPostgres && isGentle ? "SIGQUIT" : "SIGKILL");
  } catch {
    // It has ended.
  }
}
