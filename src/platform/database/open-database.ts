import { type Config } from "../config/config.ts";
import { lockDataDir, readSecrets } from "../config/data-dir.ts";
import { findEmbeddedPostgres, startEmbeddedPostgres } from "./embedded-postgres.ts";
import { UsageError } from "../errors.ts";
import { openLog } from "../logger.ts";

const SHARE_ATTEMPTS = 20;

/**
 * URL of a database, and the configuration with generated secrets where none are configured.
 * Disposing stops an embedded database that was started.
 */
export type Opened = AsyncDisposable & { config: Config; databaseUrl: string };

/**
 * Returns the configured database, or locks the data folder and starts the embedded one. Throws
 * UsageError while another process has the folder.
 */
export async function ownDatabase(config: Config): Promise<Opened> {
  if (config.databaseUrl !== undefined) return opened(config, config.databaseUrl);
  await using opening = new AsyncDisposableStack();
  opening.use(lockDataDir(config.dataDir));
  const log = openLog(config.logLevel);
  const { url } = opening.use(await startEmbeddedPostgres(config.dataDir, log));
  return opened(config, url, opening.move());
}

/** Like `ownDatabase`, but uses the embedded database of a running `start` if there is one. */
export async function shareDatabase(config: Config): Promise<Opened> {
  for (let attempt = 1; ; attempt++) {
    const running = config.databaseUrl ?? (await findEmbeddedPostgres(config.dataDir));
    if (running !== undefined) return opened(config, running);
    try {
      return await ownDatabase(config);
    } catch (error) {
      if (!(error instanceof UsageError) || attempt === SHARE_ATTEMPTS) throw error;
    }
    // The owner of the folder is just starting or stopping the database.
    await Bun.sleep(500);
  }
}

function opened(config: Config, databaseUrl: string, owner = new AsyncDisposableStack()): Opened {
  const secrets =
    config.tokenSecrets.length > 0
      ? config.tokenSecrets
      : [readSecrets(config.dataDir).tokenSecret];
  return {
    config: { ...config, tokenSecrets: secrets },
    databaseUrl,
    [Symbol.asyncDispose]: async () => await owner.disposeAsync(),
  };
}
