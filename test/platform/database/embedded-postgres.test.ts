import { chownSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { expect, test } from "bun:test";

import { bareEnv } from "../../support/command.ts";
import { MAIN } from "../../support/program.ts";

const NAMELESS = 54_321;
const AS_NAMELESS = ["setpriv", `--reuid=${NAMELESS}`, `--regid=${NAMELESS}`, "--clear-groups"];

// Only root can become another user, and that user must be able to read the program; any other user
// has a name.
const users = canBecomeNameless() ? ["a user id without a name"] : [];
test.each(users)(
  "%s is told its ways out",
  async () => {
    const folder = mkdtempSync(join(tmpdir(), "floodgate-nameless-"));
    chownSync(folder, NAMELESS, NAMELESS);
    const child = Bun.spawn([...AS_NAMELESS, process.execPath, MAIN, "start"], {
      env: { ...bareEnv(), PORT: "0", DATA_DIR: folder },
      stderr: "pipe",
    });
    const [err, code] = await Promise.all([child.stderr.text(), child.exited]);
    rmSync(folder, { recursive: true });
    expect(code).toBe(2);
    expect(err.trimEnd().split("\n")).toHaveLength(1);
    for (const word of [String(NAMELESS), "/etc/passwd", "DATABASE_URL"])
      expect(err).toContain(word);
  },
  60_000,
);

function canBecomeNameless(): boolean {
  if (process.getuid?.() !== 0) return false;
  const command = [...AS_NAMELESS, process.execPath, "-e", `await Bun.file("${MAIN}").text()`];
  return Bun.spawnSync(command).exitCode === 0;
}
