import { closeSync, constants, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** The descriptors of a new pipe, to be handed to processes. Bun's own pipes to them are sockets. */
export function openPipe(): { reader: number; writer: number } {
  const folder = mkdtempSync(join(tmpdir(), "floodgate-pipe-"));
  const path = join(folder, "pipe");
  Bun.spawnSync(["mkfifo", path]);
  // Neither end could be opened without the other.
  const both = openSync(path, constants.O_RDWR);
  const pipe = {
    reader: openSync(path, constants.O_RDONLY),
    writer: openSync(path, constants.O_WRONLY),
  };
  closeSync(both);
  rmSync(folder, { recursive: true });
  return pipe;
}
