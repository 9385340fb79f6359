import { Database, SQLiteError } from "bun:sqlite";
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

import { UsageError } from "./errors.ts";

export type Secrets = { tokenSecret: string; postgresPassword: string };

/**
 * Takes the folder for this process. The lock is SQLite's: the kernel drops it when the process ends, however it ends.
 * Throws UsageError while another process has it.
 */
export function lockDataDir(dataDir: string): Disposable {
  mkdirSync(dataDir, { recursive: true });
  const lock = new Database(join(dataDir, "lock"), { create: true });
  try {
    lock.exec("pragma locking_mode = exclusive; begin exclusive");
  } catch (cause) {
    lock.close();
    if (!(cause instanceof SQLiteError)) throw cause;
    if (cause.code !== "SQLITE_BUSY")
      throw new Error(`cannot lock the data folder ${resolve(dataDir)}: ${cause.message}`, {
        cause,
      });
    throw new UsageError(
      `the data folder ${resolve(dataDir)} is in use by another Floodgate; stop it or set DATA_DIR`,
      { cause },
    );
  }
  return { [Symbol.dispose]: () => lock.close() };
}

/** The generated secrets of an embedded set-up, made on first use and readable by their owner alone. */
export function readSecrets(dataDir: string): Secrets {
  const path = join(dataDir, "secrets.json");
  try {
    return JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) throw error;
  }
  const secrets = { tokenSecret: randomSecret(), postgresPassword: randomSecret() };
  mkdirSync(dataDir, { recursive: true });
  // Renamed into place: a kill half-way leaves no half file behind.
  writeFileSync(`${path}.new`, JSON.stringify(secrets), { mode: 0o600 });
  renameSync(`${path}.new`, path);
  return secrets;
}

function randomSecret(): string {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString("base64url");
}
