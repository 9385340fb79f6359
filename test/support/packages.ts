import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";

import { locked } from "./lock.ts";
import { SHARED_FOLDER } from "./run-folder.ts";

// apt's own lock does not cover the update of its lists, and several test processes may install at
// once.
const LOCK = join(SHARED_FOLDER, `floodgate-packages-${userInfo().uid}.lock`);
// Adds Debian's folders of daemons, which an ordinary user's PATH lacks.
const PATH = `${process.env["PATH"] ?? ""}:/usr/local/sbin:/usr/sbin:/sbin`;

export type Need = {
  programs: string[];
  /** Debian packages that contain the programs */
  packages: string[];
  /** message that names what the tests need, and what may be set instead */
  otherwise: string;
};

/** Returns the path of an installed program. */
export function programPath(name: string): string | undefined {
  return Bun.which(name, { PATH }) ?? undefined;
}

/** Installs missing programs; without root or apt fails with a line that tells how. */
export async function needPrograms(need: Need): Promise<void> {
  if (isMet(need)) return;
  if (process.getuid?.() !== 0 || programPath("apt-get") === undefined)
    throw new Error(
      `${need.otherwise}, or run as root: apt-get install --no-install-recommends ${need.packages.join(" ")}`,
    );
  await locked(LOCK, async () => {
    if (isMet(need)) return;
    await aptGet("update");
    await aptGet("install", "-y", "--no-install-recommends", ...need.packages);
  });
}

function isMet({ programs }: Need): boolean {
  return programs.every((name) => programPath(name) !== undefined);
}

async function aptGet(...args: string[]): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "floodgate-apt-"));
  // Writes to a file, because a service that an installation starts would hold a pipe open.
  const output = Bun.file(join(folder, "output"));
  const child = Bun.spawn(["apt-get", "-o", "DPkg::Lock::Timeout=300", ...args], {
    // Single-user run level keeps services from starting: the tests start the programs.
    env: { ...process.env, PATH, DEBIAN_FRONTEND: "noninteractive", RUNLEVEL: "1" },
    stdin: "ignore",
    stdout: output,
    stderr: output,
  });
  const code = await child.exited;
  const text = await output.text();
  await rm(folder, { recursive: true });
  if (code !== 0) throw new Error(`apt-get ${args.join(" ")} failed: ${text.slice(-2000)}`);
}
