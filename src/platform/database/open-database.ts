import { type Config } from "../config/config.ts";
import { lockDataDir, readSecrets } from "../config/data-dir.ts";
import { findEmbeddedPostgres, startEmbeddedPostgres } from "./embedded-postgres.ts";
import { UsageError } from "../errors.ts";
import { openLog } from "../logger.ts";

const SHARE_ATTEMPTS = 20;

/** A database's address and the configuration completed by what lies beside an embedded one; disposing it stops what was started. */
export type Opened = AsyncDisposable & { config: Config; databaseUrl: string };

/** The configured database, or the embedded one of the data folder, held alone. Throws UsageError while another process has the folder. */
export async function ownDatabase(config: Config): Promise<Opened> {
  if (config.databaseUrl !== undefined) return opened(config, config.databaseUrl);
  const lock = lockDataDir(config.dataDir);
  try {
    const postgres = await startEmbeddedPostgres(config.dataDir);
    postgres.keep(openLog(config.logLevel));
    return opened(config, postgres.url, async () => {
      await postgres.stop();
      lock[Symbol.dispose]();
    });
  } catch (error) {
    lock[Symbol.dispose]();
    throw error;
  }
}

/** The same, but beside a running `start` its embedded database is used. */
export async function shareDatabase(config: Config): Promise<Opened> {
  for (let attempt = 1; ; attempt++) {
    const running = config.databaseUrl ?? (await findEmbeddedPostgres(config.dataDir));
    if (running !== undefined) return opened(config, running);
    try {
      return await ownDatabase(config);
    } catch (error) {
      if (!(error instanceof UsageError) || attempt === SHARE_ATTEMPTS) throw error;
    }
    // Its owner is starting or stopping it at this moment.
    await Bun.sleep(500);
  }
}

function opened(
  config: Config,
  databaseUrl: string,
  close: () => Promise<void> = async () => undefined,
): Opened {
  const secrets =
    config.tokenSecrets.length > 0
      ? config.tokenSecrets
      : [readSecrets(config.dataDir).tokenSecret];
  return {
    config: { ...config, tokenSecrets: secrets },
    databaseUrl,
    [Symbol.asyncDispose]: close,
  };
}
