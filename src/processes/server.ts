import { buildApp } from "../app.ts";
import { openBus } from "../platform/bus/open-bus.ts";
import { type Clock } from "../platform/clock.ts";
import { bothUsable } from "../platform/config/config-problems.ts";
import { type Config } from "../platform/config/config.ts";
import { DatabaseClock } from "../platform/database/database-clock.ts";
import { openDatabase } from "../platform/database/database.ts";
import { startServices } from "../platform/lifecycle.ts";
import { type Log, openLog } from "../platform/logger.ts";
import { type ObjectStore } from "../platform/objects/objects.ts";
import { openObjects } from "../platform/objects/open-objects.ts";
import { type indexSegment } from "../log/segment-index.ts";
import { Geo } from "../sessions/geo.ts";
import { readPublicKey } from "../updates/public-key.ts";
import { ServeListener } from "./serve-listener.ts";

export type ServerOptions = {
  /** Lets several processes listen on one port. */
  reusePort?: boolean;
  log?: Log;
  /** Lets tests inject faults, as `index` does. */
  wrapObjects?: (objects: ObjectStore) => ObjectStore;
  index?: typeof indexSegment;
  commitDeadlineMs?: number;
  clock?: Clock;
};

/** A running server. Disposing it answers and commits requests in progress, then closes all. */
export type Server = AsyncDisposable & Pick<ServeListener, "url" | "leave">;

/**
 * Starts one serving process on a migrated database. Everything opened is closed in reverse order
 * when the server is disposed, or when a later step throws.
 */
export async function startServer(
  config: Config,
  databaseUrl: string,
  options: ServerOptions = {},
): Promise<Server> {
  const { reusePort = false, wrapObjects = (store) => store, ...given } = options;
  const log = given.log ?? openLog(config.logLevel);
  const [geo, publicKey] = await bothUsable(
    Geo.open(config.geoipPath),
    readPublicKey(config.updates.publicKey),
  );
  await using opening = new AsyncDisposableStack();
  const sql = opening.use(openDatabase(databaseUrl, { log }));
  const databaseClock = new DatabaseClock(async () => await sql.outage.ping(), log);
  const { clock = databaseClock } = given;
  if (clock === databaseClock) await startServices(opening, [databaseClock]);
  const objects = opening.use(wrapObjects(await openObjects(config)));
  const open = opening.use(await openBus(config, sql, log));
  const files = { geo, publicKey };
  const app = await buildApp({ ...given, config, sql, objects, log, open, clock, files });
  opening.use(app.facts);
  await startServices(opening, app.services);
  const listener = opening.use(new ServeListener(app, config, reusePort));
  const { url } = listener;
  log.info({ url, objects: objects.name }, "listening");
  const opened = opening.move();
  return {
    url,
    leave: async () => await listener.leave(),
    [Symbol.asyncDispose]: async () => {
      await opened.disposeAsync();
      log.info("stopped");
    },
  };
}
