import { tmpdir } from "node:os";
import { MAIN } from "./program.ts";

/** Variables for other PostgreSQL programs; if Floodgate followed them, it could not start. */
export const FOREIGN = {
  PGTARGETSESSIONATTRS: "any",
  PGHOST: "nowhere.invalid",
  PGHOSTADDR: "192.0.2.1",
  PGPORT: "1",
  PGUSER: "stranger",
  PGPASSWORD: "wrong",
  PGDATABASE: "none",
  PGDATA: "/nowhere",
  PGOPTIONS: "-c nonsense=1",
  PGSSLMODE: "verify-full",
  PGSSL: "require",
  PGSSLROOTCERT: "/nowhere",
  PGSSLNEGOTIATION: "direct",
  PGPASSFILE: "/nowhere",
  PGSERVICE: "none",
  PGCONNECT_TIMEOUT: "0.001",
  PGMAX: "0",
  PGBACKOFF: "x",
  PGFETCH_TYPES: "x",
  PGCLIENTENCODING: "EUC_JP",
  PGAPPNAME: "other",
};

/** Returns an environment with nothing of the tester's own but where programs are. */
export function bareEnv(): { PATH: string; TMPDIR: string } {
  return { PATH: process.env["PATH"] ?? "", TMPDIR: tmpdir() };
}

/** Runs the program to its end. */
export async function runCommand(args: string[], env: Record<string, string>) {
  const child = Bun.spawn([process.execPath, MAIN, ...args], {
    env: { ...bareEnv(), HOME: tmpdir(), LOG_LEVEL: "error", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const [out, err, code] = await Promise.all([
    child.stdout.text(),
    child.stderr.text(),
    child.exited,
  ]);
  return { out, err, code };
}
