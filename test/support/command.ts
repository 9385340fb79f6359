import { tmpdir } from "node:os";
import { join } from "node:path";

const MAIN = join(import.meta.dir, "../../src/main.ts");

/** Runs the program to its end. */
export async function runCommand(args: string[], env: Record<string, string>) {
  const child = Bun.spawn([process.execPath, MAIN, ...args], {
    env: { PATH: process.env["PATH"] ?? "", HOME: tmpdir(), LOG_LEVEL: "error", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const [out, err, code] = await Promise.all([
    child.stdout.text(),
    child.stderr.text(),
    child.exited,
  ]);
  return { out, err, code };
}
