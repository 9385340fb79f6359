import { join } from "node:path";

import { REPOSITORY } from "./processes.ts";

const TIMEOUT_MS = 300_000;
/** Files that decide which dependencies are installed. */
const LOCKED = ["package.json", "bun.lock", "patches"];

/** Returns the commit of a git ref; throws if there is none. */
export async function commitOf(ref: string): Promise<string> {
  const args = ["rev-parse", "--verify", "--quiet", "--end-of-options", `${ref}^{commit}`];
  const commit = await attempt("git", args, REPOSITORY);
  if (commit === undefined) throw new Error(`there is no git ref ${ref}`);
  return commit;
}

/**
 * Writes the files of a commit into an empty folder, with the dependencies that it locks: those of
 * this repository if it locks the same, else it installs them.
 */
export async function checkOut(commit: string, folder: string): Promise<void> {
  const archive = `${folder}.tar`;
  await command("git", ["archive", `--output=${archive}`, commit], REPOSITORY);
  await command("mkdir", [folder], REPOSITORY);
  await command("tar", ["-xf", archive], folder);
  const same = await attempt("git", ["diff", "--quiet", commit, "--", ...LOCKED], REPOSITORY);
  if (same !== undefined)
    await command("ln", ["-s", join(REPOSITORY, "node_modules"), "node_modules"], folder);
  else await command(process.execPath, ["install", "--frozen-lockfile"], folder);
}

async function command(program: string, args: string[], folder: string): Promise<void> {
  if ((await attempt(program, args, folder)) === undefined)
    throw new Error(`${program} ${args.join(" ")} failed in ${folder}`);
}

/** Runs a program; returns what it wrote, or undefined if it failed. */
async function attempt(program: string, args: string[], cwd: string): Promise<string | undefined> {
  const child = Bun.spawn([program, ...args], {
    cwd,
    stdio: ["ignore", "pipe", "ignore"],
    timeout: TIMEOUT_MS,
  });
  const [text, code] = await Promise.all([child.stdout.text(), child.exited]);
  return code === 0 ? text.trim() : undefined;
}
