import { type App, buildApp } from "../app.ts";
import { type Clock } from "../platform/clock.ts";
import { bothUsable } from "../platform/config/config-problems.ts";
import { type Config } from "../platform/config/config.ts";
import { DatabaseClock } from "../platform/database/database-clock.ts";
import { openDatabase } from "../platform/database/database.ts";
import { type Log, openLog } from "../platform/logger.ts";
import { openBus } from "../platform/bus/open-bus.ts";
import { cannotListen, refuseConnections } from "../platform/http/listener.ts";
import { openObjects } from "../platform/objects/open-objects.ts";
import { webSocketHandler } from "../platform/http/websocket.ts";
import { type ObjectStore } from "../platform/objects/objects.ts";
import { type indexSegment } from "../log/segment-index.ts";
import { Geo } from "../sessions/geo.ts";
import { readPublicKey } from "../updates/public-key.ts";

// How long requests are still taken after SIGTERM, so that a load balancer can see /readyz first.
const LEAVE_MS = 2000;
// How long clients are told on connections that they kept to make their next one elsewhere.
const LINGER_MS = 500;
const DRAIN_MS = 6000;
const ANSWER_MS = 200;
const IDLE_TIMEOUT_S = 60;

export type ServerOptions = {
  /** several processes on one port */
  reusePort?: boolean;
  log?: Log;
  /** tests put faults around these */
  wrapObjects?: (objects: ObjectStore) => ObjectStore;
  index?: typeof indexSegment;
  commitDeadlineMs?: number;
  clock?: Clock;
};

export type Server = {
  url: string;
  /** Answers what was begun, commits it, closes. With `leave` it first tells load balancers for two seconds. */
  stop: (options?: { leave: boolean }) => Promise<void>;
};

/** One serving process: `databaseUrl` is that of a migrated database. */
export async function startServer(
  config: Config,
  databaseUrl: string,
  options: ServerOptions = {},
): Promise<Server> {
  const log = options.log ?? openLog(config.logLevel);
  const [geo, publicKey] = await bothUsable(
    Geo.open(config.geoipPath),
    readPublicKey(config.updates.publicKey),
  );
  const sql = openDatabase(databaseUrl, { log });
  const clock =
    options.clock ?? (await DatabaseClock.open(async () => await sql.outage.ping(), log));
  const opened = await openObjects(config);
  const objects = options.wrapObjects?.(opened) ?? opened;
  const open = await openBus(config, sql, log);
  const app = await buildApp({
    config,
    sql,
    objects,
    log,
    open,
    clock,
    files: { geo, publicKey },
    ...(options.index !== undefined && { index: options.index }),
    ...(options.commitDeadlineMs !== undefined && { commitDeadlineMs: options.commitDeadlineMs }),
  });
  await Promise.all([app.projects.watch(), app.signatures.watch(), app.offers.watch()]);
  // Which projects have a quota is known now.
  await app.quotas.watch();
  app.presence.start();
  const server = listen(config, options.reusePort ?? false, app.edge.fetch.bind(app.edge));
  app.clients.attach(server);
  log.info({ url: server.url.href, objects: objects.name }, "listening");

  const stop = async ({ leave } = { leave: false }) => {
    app.health.stopping = true;
    if (leave) await Bun.sleep(LEAVE_MS);
    await drain(app, server, leave);
    await server.stop(true);
    await app.quotas.stop();
    app.projects[Symbol.dispose]();
    app.signatures[Symbol.dispose]();
    app.offers[Symbol.dispose]();
    app.workerNumber[Symbol.dispose]();
    await app.presence.stop();
    await open[Symbol.asyncDispose]();
    await objects[Symbol.asyncDispose]();
    if (clock instanceof DatabaseClock) clock[Symbol.dispose]();
    await sql.end({ timeout: 1 });
    log.info("stopped");
  };
  return { url: server.url.href, stop };
}

/** Refuses new connections, answers what was begun, commits it. */
async function drain(
  { edge, presence, commitLog }: App,
  server: ReturnType<typeof listen>,
  leave: boolean,
): Promise<void> {
  // Until now clients have kept their connections, so that few new ones are on their way: what is not yet accepted is reset.
  const lingers = leave && (await refuseConnections(Number(server.port)));
  // Its promise would wait for idle connections, too.
  if (!lingers) void server.stop();
  edge.draining = true;
  const blocked = presence.disconnectAll();
  const closedMs = performance.now();
  const lingerMs = lingers ? LINGER_MS : 0;
  commitLog.closeAll();
  // Bun's own number counts the answers, too, whose bodies are still being read.
  const isOpen = () => edge.active > 0 || server.pendingRequests > blocked;
  for (let ms = 0; ms < lingerMs || (isOpen() && ms < DRAIN_MS);) {
    commitLog.closeAll();
    await Bun.sleep(10);
    ms = performance.now() - closedMs;
  }
  // Who still waits is told to send it again, instead of being cut off.
  commitLog.abandon();
  await commitLog.flush();
  await Bun.sleep(edge.active > 0 ? ANSWER_MS : 0);
}

function listen(
  config: Config,
  reusePort: boolean,
  fetch: (request: Request) => Promise<Response>,
) {
  try {
    return Bun.serve({
      port: config.port,
      hostname: config.host,
      reusePort,
      fetch,
      websocket: webSocketHandler,
      idleTimeout: IDLE_TIMEOUT_S,
      // Every route has its own bounds; this one could not tell them apart.
      maxRequestBodySize: Number.MAX_SAFE_INTEGER,
      development: false,
    });
  } catch (cause) {
    throw cannotListen(config.host, config.port, cause);
  }
}
