import { chmodSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const END_RUN = join(import.meta.dir, "end-run.ts");
// A shell waits at less cost than Bun. Its input ends when this process does, however that happens.
const AT_THE_END = 'read -r _; exec "$@"';

/** Folder for what all runs on this machine share; a run's own temporary files are elsewhere. */
export const SHARED_FOLDER = (process.env["TEST_SHARED_FOLDER"] ??= tmpdir());

/**
 * Gives this process and those that it starts a TMPDIR of their own. What they leave in it, and those
 * that still run, are gone after the returned function was called, or soon after a kill.
 */
export function beginRun(): () => Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "floodgate-"));
  // Some programs run as another user.
  chmodSync(folder, 0o1777);
  process.env["TMPDIR"] = folder;
  const command = [process.execPath, END_RUN, folder, String(process.pid)];
  const watcher = Bun.spawn(["sh", "-c", AT_THE_END, "sh", ...command], {
    stdio: ["pipe", "ignore", "ignore"],
    // Its own session: Ctrl-C ends the run first.
    detached: true,
  });
  watcher.unref();
  return async () => {
    const { endRun } = await import("./end-run.ts");
    await endRun(folder, process.pid);
    watcher.kill("SIGKILL");
  };
}
