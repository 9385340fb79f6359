import { closeSync, constants, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Opens a pipe to hand to processes; Bun's own "pipes" are sockets. */
export function openPipe(): { reader: number; writer: number } {
  const folder = mkdtempSync(join(tmpdir(), "floodgate-pipe-"));
  const path = join(folder, "pipe");
  Bun.spawnSync(["mkfifo", path]);
  // Open both ways first: opening one end alone would block until the other is open.
  const both = openSync(path, constants.O_RDWR);
  const pipe = {
    reader: openSync(path, constants.O_RDONLY),
    writer: openSync(path, constants.O_WRONLY),
  };
  closeSync(both);
  rmSync(folder, { recursive: true });
  return pipe;
}
