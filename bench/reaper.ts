import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";

/**
 * Ends the processes of the bench and removes its folder if the bench itself was killed. The bench
 * sends it the pids to watch and to forget; a bench that ends normally has ended all of them
 * before.
 */
const GRACE_MS = 3000;
const pids = new Set<number>();
let folder: string | undefined;

process.on("message", (message: { watch?: number; forget?: number; folder?: string }) => {
  if (message.watch !== undefined) pids.add(message.watch);
  if (message.forget !== undefined) pids.delete(message.forget);
  if (message.folder !== undefined) folder = message.folder;
});
process.on("disconnect", () => void clean());
// Ignores signals to the process group, because this process must outlive the bench.
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(name, () => {});

async function clean(): Promise<void> {
  const postmaster = readPostmaster();
  for (const pid of pids) signal(pid, "SIGTERM");
  // SIGINT is PostgreSQL's fast shutdown: it does not wait for clients.
  if (postmaster !== undefined) signal(postmaster, "SIGINT");
  const all = postmaster === undefined ? [...pids] : [...pids, postmaster];
  const deadline = Date.now() + GRACE_MS;
  while (all.some((pid) => signal(pid, 0)) && Date.now() < deadline) await Bun.sleep(50);
  for (const pid of all) signal(pid, "SIGKILL");
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
  process.exit(0);
}

function readPostmaster(): number | undefined {
  const path = folder && join(folder, "postgres", "postmaster.pid");
  if (!path || !existsSync(path)) return undefined;
  const pid = Number(readFileSync(path, "utf8").split("\n")[0]);
  return pid > 1 ? pid : undefined;
}

/** Returns false if there is no such process. */
function signal(pid: number, name: NodeJS.Signals | 0): boolean {
  try {
    process.kill(pid, name);
    return true;
  } catch {
    return false;
  }
}
