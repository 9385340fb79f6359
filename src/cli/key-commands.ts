import { resolve } from "node:path";

import { type Command } from "commander";

import { print } from "./commands.ts";
import { type Config } from "../platform/config/config.ts";
import { storedServerKey } from "../platform/config/data-dir.ts";
import { UsageError } from "../platform/errors.ts";

/** Adds `key show`, which works whether the server is running or not. */
export function addKeyCommands(root: Command, config: () => Config): void {
  root
    .command("show")
    .description("print the key that the first `start` generated")
    .option("--json", "print one JSON object")
    .action(({ json }: { json?: boolean }) => {
      const serverKey = madeKey(config());
      print(json === true ? JSON.stringify({ serverKey }) : serverKey);
    });
}

/**
 * Returns the generated key. Throws UsageError if the operator configures the keys, or none was
 * generated yet.
 */
function madeKey({ databaseUrl, serverKeys, dataDir }: Config): string {
  if (serverKeys.length > 0)
    throw new UsageError("the server keys are those in SERVER_KEYS; none was generated");
  if (databaseUrl !== undefined)
    throw new UsageError("no server key is generated with DATABASE_URL: set SERVER_KEYS");
  const serverKey = storedServerKey(dataDir);
  if (serverKey === undefined)
    throw new UsageError(
      `no server key in ${resolve(dataDir)}: the first \`start\` generates one there`,
    );
  return serverKey;
}
