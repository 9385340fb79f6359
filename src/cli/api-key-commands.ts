import { type Command, Option } from "commander";

import { print, withDatabase } from "./commands.ts";
import { wholeNumber } from "./whole-number.ts";
import { type Config } from "../platform/config/config.ts";
import { openLog } from "../platform/logger.ts";
import { ROLES, type Role, type ApiKey, ApiKeys } from "../api-keys/service.ts";

const ID_MAX = 2 ** 31 - 1;

type Json = { json?: boolean };

/** Adds `signature create|list|revoke`, which work whether the server is running or not. */
export function addApiKeyCommands(root: Command, config: () => Config): void {
  root
    .command("create")
    .description("create a signature and print it; it cannot be shown again")
    .addOption(
      new Option("--role <role>", "client: report installs; service: publish and list")
        .choices(ROLES)
        .makeOptionMandatory(),
    )
    .option("--signature <text>", "use this text of 16 to 256 visible ASCII characters")
    .option("--json", "print one JSON object")
    .action(async ({ json, ...options }: Json & { role: Role; signature?: string }) => {
      const created = await withApiKeys(config(), async (all) => await all.create(options));
      show(created, json);
    });
  root
    .command("list")
    .description("list all signatures, without their text")
    .option("--json", "print one JSON object")
    .action(async ({ json }: Json) => {
      const signatures = await withApiKeys(config(), async (all) => await all.list());
      if (json === true) print(JSON.stringify({ signatures }));
      else for (const signature of signatures) print(lineOf(signature));
    });
  root
    .command("revoke")
    .description("revoke a signature; takes effect everywhere within five seconds")
    .argument("<id>", "as `signature list` prints it", wholeNumber(1, ID_MAX))
    .option("--json", "print one JSON object")
    .action(async (revoked: number, { json }: Json) => {
      show(await withApiKeys(config(), async (all) => await all.revoke(revoked)), json);
    });
}

async function withApiKeys<T>(
  config: Config,
  work: (signatures: ApiKeys) => Promise<T>,
): Promise<T> {
  return await withDatabase(config, async (sql) => {
    const log = openLog(config.logLevel);
    return await work(new ApiKeys({ sql, log }));
  });
}

function show(shown: object, json: boolean | undefined): void {
  const fields: Record<string, unknown> = JSON.parse(JSON.stringify(shown));
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${String(value)}`);
  print(json === true ? JSON.stringify(shown) : lines.join("\n"));
}

function lineOf({ id: number, role, createdAt, revokedAt }: ApiKey): string {
  const state = revokedAt === null ? "valid" : `revoked ${revokedAt.toISOString()}`;
  return [number, role, createdAt.toISOString(), state].join("\t");
}
