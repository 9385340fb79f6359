import { Database, SQLiteError } from "bun:sqlite";
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

import { UsageError } from "./errors.ts";

const SECRETS_FILE = "secrets.json";

/** `serverKey` is made by the first `start` that has no SERVER_KEYS. */
export type Secrets = { tokenSecret: string; postgresPassword: string; serverKey?: string };
export type ServerKey = { serverKey: string; isNew: boolean };

/**
 * Takes the folder for this process. The lock is SQLite's: the kernel drops it when the process ends, however it ends.
 * Throws UsageError while another process has it.
 */
export function lockDataDir(dataDir: string): Disposable {
  const lock = openLock(dataDir);
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

/** Throws UsageError for a folder that this user cannot make or write to. */
function openLock(dataDir: string): Database {
  try {
    mkdirSync(dataDir, { recursive: true });
    return new Database(join(dataDir, "lock"), { create: true });
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new UsageError(`cannot use the data folder ${resolve(dataDir)} (DATA_DIR): ${reason}`, {
      cause,
    });
  }
}

/** The generated secrets of an embedded set-up, made on first use and readable by their owner alone. */
export function readSecrets(dataDir: string): Secrets {
  const kept = keptSecrets(dataDir);
  if (kept !== undefined) return kept;
  return writeSecrets(dataDir, { tokenSecret: randomSecret(), postgresPassword: randomSecret() });
}

/** The server key of an embedded set-up, made on first use. */
export function readServerKey(dataDir: string): ServerKey {
  const secrets = readSecrets(dataDir);
  if (secrets.serverKey !== undefined) return { serverKey: secrets.serverKey, isNew: false };
  const serverKey = randomSecret();
  writeSecrets(dataDir, { ...secrets, serverKey });
  return { serverKey, isNew: true };
}

/** The same without making one. */
export function keptServerKey(dataDir: string): string | undefined {
  return keptSecrets(dataDir)?.serverKey;
}

function keptSecrets(dataDir: string): Secrets | undefined {
  try {
    return JSON.parse(readFileSync(join(dataDir, SECRETS_FILE), "utf8"));
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
}

/** Renames them into place: a kill half-way leaves no half file behind. */
function writeSecrets(dataDir: string, secrets: Secrets): Secrets {
  const path = join(dataDir, SECRETS_FILE);
  mkdirSync(dataDir, { recursive: true });
  writeFileSync(`${path}.new`, JSON.stringify(secrets), { mode: 0o600 });
  renameSync(`${path}.new`, path);
  return secrets;
}

function randomSecret(): string {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString("base64url");
}
